"""Budgets that methods share: operations and seconds of training, known or kept."""

import json
from pathlib import Path

import pytest
from faults import fault
from test_study import compared, here  # noqa: F401  the reviews that the runs read
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import graftlab
from graftlab import config, study
from graftlab.errors import ConfigError
from graftlab.planning import budget, operations
from graftlab.runs import attachment, material
from graftlab.seeds import mix
from graftlab.training.order import Order
from graftlab.training.parallel.processes import Processes
from graftlab.training.patience import is_out_of_time
from graftlab.training.state import Position

BASE = """
base:
  backbone: {kind: tiny, width: 8, layers: 2, max_length: 32}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  training: {max_steps: 4, batch_size: 4, micro_batch_size: 2, evaluate_every: 0, save_every: 0}
"""


def read(text):
    Path("study.yaml").write_text(text, encoding="utf-8")
    return study.read("study.yaml")


def check(plan):
    asked = plan.study.budget
    for group in plan.files_by_group():
        budget.check(group, asked.equal, asked.within, plan.budget_place)


# Operations


@pytest.mark.parametrize(
    "method", ["head", "{name: lora, rank: 2}", "{name: prompt, num_tokens: 2}"]
)
def test_operations_are_those_that_torch_counts_on_the_model_itself(method):
    """In the fake pass nothing has values; here weights and batch are real."""
    file = read(BASE + f"methods: [{method}]\n").runs[0].file
    loaded = material.load(file)
    attached = attachment.attach(file, loaded.backbone, loaded.task, None, Processes())
    order = Order.of(loaded.task, 4, mix(file.seed, "order"), file.training.group_by_length)
    batch = loaded.task.batch("train", order.batch(1)[:2], None)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loaded.task.loss(attached.model.eval(), batch).backward()
    assert counter.get_total_flops() > 0
    assert operations.training_flops(file) == counter.get_total_flops() / 2 * 4 * 4


def test_operations_grow_with_the_steps_and_unlike_ones_are_refused():
    more = "{method: {name: head}, training: {max_steps: 8}}"
    plan = read(BASE + f"methods: [head, {more}]\nbudget: {{equal: flops}}\n")
    first, second = (operations.training_flops(run.file) for run in plan.runs)
    assert second == 2 * first
    with pytest.raises(ConfigError, check=fault("not_equal")) as caught:
        check(plan)
    assert [*caught.value.problems[0].given.values()] == [first, second]
    check(read(BASE + f"methods: [head, {more}]\nbudget: {{equal: flops, within: 1}}\n"))


# Time


def test_seconds_have_to_be_given_and_to_be_the_same():
    head, lora = (
        "{{method: {{name: {}}}, training: {{max_seconds: {}}}}}".format(*one)
        for one in (("head", 5), ("lora", 6))
    )
    with pytest.raises(ConfigError, match="max_seconds"):
        check(read(BASE + "methods: [head, lora]\nbudget: {equal: time}\n"))
    with pytest.raises(ConfigError, check=fault("not_equal", given={"head": 5.0, "lora": 6.0})):
        check(read(BASE + f"methods: [{head}, {lora}]\nbudget: {{equal: time}}\n"))
    alike = lora.replace("6", "5")
    check(read(BASE + f"methods: [{head}, {alike}]\nbudget: {{equal: time}}\n"))


def test_seconds_add_up_over_the_sessions_of_a_run():
    position = Position()
    assert not is_out_of_time(position, 3.0, 5.0, bool)
    resumed = Position.from_json(json.loads(json.dumps(position.as_json())))
    assert not is_out_of_time(resumed, 1.5, 5.0, bool)
    assert is_out_of_time(resumed, 0.5, 5.0, bool)
    assert resumed.out_of_time
    old = {k: v for k, v in Position().as_json().items() if k not in ("seconds", "out_of_time")}
    assert Position.from_json(old) == Position()


def test_without_a_limit_a_run_is_known_as_it_was_before_there_was_one():
    runs = read(BASE + "methods: [head, {method: {name: lora}, training: {max_seconds: 5}}]\n").runs
    assert ["max_seconds" in run.file.resolved["training"] for run in runs] == [False, True]


@pytest.mark.slow
def test_a_run_whose_time_is_up_ends_scored_and_says_that_it_cannot_be_repeated():
    text = BASE.replace("base:\n", "").replace("\n  ", "\n") + "method: {name: head}\n"
    text = text.replace("evaluate_every: 0", "evaluate_every: 3, max_seconds: 1e-9")
    Path("run.yaml").write_text(text, encoding="utf-8")
    run = graftlab.run("run.yaml")
    result = run.read_result()
    assert (result["steps"], result["ended_early"], result["selected_step"]) == (1, True, 1)
    assert [note["kind"] for note in result["not_exact"]] == ["out_of_time"]
    assert result["metrics"]["test"]["accuracy"]["value"] is not None
    assert any("validation/accuracy" in line for line in run.read_metrics())
    assert config.read_yaml(run.config)["training"]["max_seconds"] == 1e-9


def test_rows_of_equal_time_may_have_other_steps():
    own = [
        f"{{method: {{name: {name}}}, training: {{max_seconds: 5}}}}"
        for name in ("head", "lora", "full")
    ]
    text = BASE + f"methods: [{', '.join(own)}]\n"

    def figures(planned):
        return {"test": 0.5, "validation": 0.5, "steps": 9 if planned.cell.method == "full" else 2}

    flagged = [
        row.not_paired for row in compared(read(text + "budget: {equal: time}\n"), figures).rows
    ]
    assert flagged == [[], [], []]
    Path("made").rename("made-before")
    flagged = [row.not_paired for row in compared(read(text), figures).rows]
    assert [bool(reasons) for reasons in flagged] == [False, False, True]
