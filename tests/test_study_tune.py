"""A study that tunes: each method gets the same number of trials, and test is seen by the winners alone."""

import json
import os
import signal
from pathlib import Path

import pytest
from faults import fault
from test_study import here  # noqa: F401  the reviews that the runs read
from typer.testing import CliRunner
from waiting import beside, until

from graftlab import cli, config, study
from graftlab.errors import ConfigError, Stopped
from graftlab.planning import budget
from graftlab.report import study_grid
from graftlab.rundir.run import Run
from graftlab.search import tuned
from graftlab.study import whole_file
from graftlab.study.findings import Point, Tuning

BASE = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  training: {max_steps: 2, batch_size: 4, evaluate_every: 1, save_every: 0, learning_rate: 1e-2}
forgetting: {measure: false}
seeds: [0, 1]
"""
METHODS = "methods: [head, {method: {name: lora}, tune: {method.rank: [1, 2]}}]\n"
TUNE = """
tune:
  trials: 2
  sampler: {name: random}
  pruner: {name: none}
  space: {training.learning_rate: {float: [1e-3, 1e-1], log: true}}
"""


def read(text, *overrides):
    Path("study.yaml").write_text(text, encoding="utf-8")
    return study.read("study.yaml", overrides)


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


# What is asked for


def test_each_method_is_searched_in_its_own_space_with_as_many_trials():
    found = tuned.searches(read(BASE + METHODS + TUNE))
    spaces = {cell.method: set(one.search.space) for cell, one in found.items()}
    assert spaces == {
        "head": {"training.learning_rate"},
        "lora": {"training.learning_rate", "method.rank"},
    }
    assert {tuned.count(one) for one in found.values()} == {2}
    assert {one.file.method.name: one.file.seed for one in found.values()} == {"head": 0, "lora": 0}


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        (TUNE + "vary: {training.batch_size: [2, 4]}\n", "conflict", "tune"),
        (TUNE.replace("trials: 2", "trils: 2"), "unknown", "tune.trils"),
        (TUNE.replace("trials: 2", "hours: 2"), "unknown", "tune.hours"),
        (TUNE.replace("1e-1]", "1e9]"), None, "training.learning_rate"),
        (TUNE.replace("space: {tr", "space: {training.warm: [1], tr"), "unknown", "training.warm"),
        ("", "idle", "methods.1.tune"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_trial(text, kind, key):
    with pytest.raises(ConfigError, check=fault(kind, key)):
        tuned.searches(read(BASE + METHODS + text))


def test_grids_of_another_size_are_not_the_same_number_of_trials():
    text = TUNE.replace("random", "grid").replace(
        "{float: [1e-3, 1e-1], log: true}", "[1e-3, 1e-2]"
    )
    with pytest.raises(ConfigError, check=fault("not_equal", given=[2, 4])):
        tuned.searches(read(BASE + METHODS + text))
    alone = METHODS.replace(", tune: {method.rank: [1, 2]}", "")
    assert [*map(tuned.count, tuned.searches(read(BASE + alone + text)).values())] == [2, 2]


def test_a_study_that_tunes_is_not_carried_out_as_it_stands():
    with pytest.raises(ConfigError, check=fault("conflict")):
        study.carry_out(read(BASE + METHODS + TUNE), Path("out"), quiet=True)


def test_the_file_that_needs_no_other_tunes_alike():
    plan = read(BASE + METHODS + TUNE)
    Path("elsewhere").mkdir()
    Path("elsewhere/study.yaml").write_text(whole_file.text(plan))
    again = study.read("elsewhere/study.yaml")
    assert {k: v.values for k, v in again.spaces.items()} == {
        k: v.values for k, v in plan.spaces.items()
    }


@pytest.mark.slow
def test_a_budget_holds_at_every_end_of_every_range():
    text = BASE + "methods: [{method: {name: lora}, tune: {method.rank: [1, 2]}}]\n" + TUNE
    plan = read(text + "budget: {equal: trainable}\n")
    [group] = tuned.files_by_group(tuned.searches(plan))
    with pytest.raises(ConfigError, check=fault("not_equal")):
        budget.check(group, "trainable", 0.02, plan.budget_place)


def test_settings_that_methods_do_not_share_are_lines():
    def own(method, values):
        points = tuple(Point({"rate": str(v)}, v, None, v == max(values)) for v in values)
        return Tuning("t", "b", method, "accuracy", True, points, {"rate": "largest"}, ())

    found = study_grid.grid(
        [own("a", [0.1 * n for n in range(8)]), own("b", [3.0 + n for n in range(8)])], "g"
    )
    assert found.columns == ("method", "setting", "validation")
    first = {method: next(row for row in found.rows if row[0].text == method) for method in "ab"}
    assert [first[m][2].mark for m in "ab"] == ["chosen edge"] * 2
    shared = study_grid.grid([own("a", [1.0, 2.0]), own("b", [1.0, 2.0])], "g")
    assert shared.columns == ("method", "rate=1.0", "rate=2.0")


# Carried out for true


@pytest.mark.slow
def test_winners_run_at_every_seed_and_trials_never_see_test():
    Path("study.yaml").write_text(BASE + METHODS + TUNE, encoding="utf-8")
    first = invoke("compare", "study.yaml", "--out", "out", "--json")
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)
    assert {(row["method"], len(row["runs"])) for row in found["rows"]} == {
        ("head", 2),
        ("lora", 2),
    }
    for own in found["tunings"]:
        folder = Path("out/tuning") / own["method"]
        told = json.loads((folder / "summary.json").read_text())
        scores = sorted(point["value"] for point in own["points"])
        assert len(scores) == 2
        assert own["expected_best"] == pytest.approx(
            [sum(scores) / 2, (scores[0] + 3 * scores[1]) / 4]
        )
        row = next(row for row in found["rows"] if row["method"] == own["method"])
        for name in row["runs"].values():
            run = config.read_yaml(Run(Path("out/runs") / name).config)
            for key, value in told["best"]["values"].items():
                section, _, field = key.partition(".")
                assert run[section][field] == value
    trials = [*Path("out/tuning").glob("*/runs/*/predictions")]
    assert trials
    assert not [path for path in trials if (path / "test.jsonl").exists()]
    results = {path: path.stat().st_mtime_ns for path in Path("out").rglob("result.json")}
    again = invoke("compare", "study.yaml", "--out", "out")
    assert again.exit_code == 0, again.output
    assert results == {path: path.stat().st_mtime_ns for path in Path("out").rglob("result.json")}
    assert "seed 0" in found["chosen_by"]


@pytest.mark.slow
def test_a_signal_in_a_trial_saves_it_and_the_same_call_goes_on():
    plan = read(BASE + METHODS + TUNE, "base.training.max_steps=150", "tune.trials=1", "seeds=[0]")

    runs = Path("out/tuning/lora/runs").absolute()

    def send():
        until(lambda: [path for path in runs.glob("*/metrics.jsonl") if path.stat().st_size])
        os.kill(os.getpid(), signal.SIGTERM)

    beside(send)
    with pytest.raises(Stopped):
        tuned.carry_out(plan, Path("out"), quiet=True)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("result.json")}
    assert [path.parts[2] for path in before] == ["head"]
    found = tuned.carry_out(plan, Path("out"), quiet=True)
    assert {run.cell.method for run in found.plan.runs} == {"head", "lora"}
    [log] = Path("out/tuning/lora/runs").glob("*/run.log")
    assert "going on from step" in log.read_text()
    assert (
        before.items()
        <= {p: p.stat().st_mtime_ns for p in Path("out").rglob("result.json")}.items()
    )


@pytest.mark.slow
def test_a_method_of_which_every_trial_fails_is_a_hole_with_its_cause():
    bad = "methods: [head, {name: lora, targets: [no_such_layer]}]\n"
    plan = read(BASE + bad + TUNE, "tune.trials=1", "seeds=[0]")
    found = tuned.carry_out(plan, Path("out"), quiet=True)
    table = found.compare(study.carry_out(found.plan, Path("out"), quiet=True))
    causes = {row.method: "; ".join(row.holes.values()) for row in table.rows}
    assert causes["head"] == ""
    assert "no_such_layer" in causes["lora"]
