"""Every field of `training:` does something: another run, another record, or a refusal.

A new field without a case here fails the first test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import tiny_runs
import torch
from pydantic import BaseModel
from safetensors.torch import load_file

from graftlab.config import merge
from graftlab.errors import ConfigError
from graftlab.rundir.lines import read_lines
from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.training import checkpoint
from graftlab.training.config import Config

BASE = {
    "max_steps": 6, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.01,
    "logging_every": 1, "evaluate_every": 2, "save_every": 1, "keep_checkpoints": 9,
    "schedule": {"warmup": 0},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A field's other value, what is laid under both runs for it to matter, and what must come of it."""

    value: Any
    effect: "Callable[[Run, Run], Any]"
    """Given the run without and the run with the value: asserts what is right."""
    under: dict[str, Any] = field(default_factory=dict)


def column(run: Run, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in run.read_metrics() if name in row}


def steps_taken(before: int, after: int) -> Callable[[Run, Run], None]:
    def check(old: Run, new: Run) -> None:
        assert (max(column(old, "loss")), max(column(new, "loss"))) == (before, after)

    return check


def rates(*shares: float) -> Callable[[Run, Run], None]:
    """Return a check that each step's rate is that share of the base's peak."""

    def check(_: Run, new: Run) -> None:
        found = list(column(new, "learning_rate").values())
        assert found == pytest.approx([BASE["learning_rate"] * share for share in shares])

    return check


def evaluations(*steps: int) -> Callable[[Run, Run], None]:
    def check(_: Run, new: Run) -> None:
        assert tuple(column(new, "validation/loss")) == steps

    return check


def examples_seen(*expected: int) -> Callable[[Run, Run], None]:
    def check(*runs: Run) -> None:
        seen = [sum(row.get("examples", 0) for row in read_lines(run.timing)) for run in runs]
        assert tuple(seen) == expected

    return check


def first_step(run: Run, part: str = "") -> torch.Tensor:
    """Return by how much the first step has moved the trainable weights with `part` in their name."""
    one, two = (
        load_file(run.checkpoints / checkpoint.name(step) / "trainable.safetensors")
        for step in (0, 1)
    )
    return torch.cat([(two[name] - one[name]).flatten() for name in one if part in name])


def moved(old: Run, new: Run) -> None:
    """Adam's first step is the rate, whatever the gradient."""
    assert first_step(old, "classifier").abs().max() == pytest.approx(0.01, rel=1e-3)
    assert first_step(new, "classifier").abs().max() == pytest.approx(0.5, rel=1e-3)
    assert first_step(new, "lora_B").abs().max() == pytest.approx(0.01, rel=1e-3)


def moved_by_the_gradient(_: Run, new: Run) -> None:
    """SGD's first step is the rate times the gradient, which is clipped to 1."""
    norm = min(column(new, "gradient_norm")[1], 1.0)
    assert first_step(new).norm().item() == pytest.approx(0.01 * norm, rel=1e-3)


def moved_by_the_clipped_gradient(old: Run, new: Run) -> None:
    assert column(old, "gradient_norm")[1] == column(new, "gradient_norm")[1] > 0.01
    assert first_step(new).norm().item() == pytest.approx(0.01 * 0.01, rel=1e-3)


def decayed(old: Run, new: Run) -> None:
    """A has no gradient in the first step, since B is zero: only the decay moves it."""
    start = load_file(new.checkpoints / checkpoint.name(0) / "trainable.safetensors")
    a = torch.cat([value.flatten() for name, value in start.items() if "lora_A" in name])
    torch.testing.assert_close(first_step(new, "lora_A"), -0.01 * 0.5 * a, rtol=1e-3, atol=1e-7)
    assert not torch.equal(first_step(old, "lora_A"), first_step(new, "lora_A"))


def later_steps(old: Run, new: Run) -> None:
    """Adam's first step does not depend on its betas; those after it do."""
    before, after = column(old, "loss"), column(new, "loss")
    # The bias corrections of the first step cancel up to rounding.
    assert (after[1], after[2]) == pytest.approx((before[1], before[2]), rel=1e-6)
    assert after[3] != pytest.approx(before[3], rel=1e-6)


def other_draws(old: Run, new: Run) -> None:
    """Dropout is drawn for each micro-batch; the mean over the batch is of the same examples."""
    before, after = column(old, "loss"), column(new, "loss")
    assert before[1] != after[1]
    assert before[1] == pytest.approx(after[1], abs=0.1)


def smoothed(old: Run, new: Run) -> None:
    """The mean over two classes is log 2 at least; how much it is stands in test_loop_arithmetic."""
    before, after = column(old, "loss")[1], column(new, "loss")[1]
    assert before != after >= 0.7 * before + 0.3 * math.log(2) - 1e-6


def rounded(old: Run, new: Run) -> None:
    """bfloat16 has eight bits: the loss is near, not equal; what trains stays float32."""
    before, after = column(old, "loss")[1], column(new, "loss")[1]
    assert before != after
    assert before == pytest.approx(after, abs=0.02)
    saved = load_file(new.checkpoints / checkpoint.name(1) / "trainable.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def every_second(old: Run, new: Run) -> None:
    """Two steps of eight examples each: their mean."""
    each, pairs = column(old, "loss"), column(new, "loss")
    assert pairs == pytest.approx({s: (each[s - 1] + each[s]) / 2 for s in (2, 4, 6)})


def sooner(old: Run, new: Run) -> None:
    """With patience 0 the first evaluation without improvement lowers the rate, with 10 none does."""
    assert len(set(column(old, "learning_rate").values())) == 1
    assert len(set(column(new, "learning_rate").values())) > 1


def other_order(old: Run, new: Run) -> None:
    assert column(old, "loss")[1] != column(new, "loss")[1]


COSINE = [0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]
RESTARTS = [0.5 * (1 + math.cos(math.pi * (2 * k / 6 % 1))) for k in range(6)]
LINEAR = [1 - k / 6 for k in range(6)]
CURVES: dict[str, Case] = {
    "epochs": Case(2, steps_taken(5, 10), {"max_steps": 0, "epochs": 1}),
    "max_steps": Case(4, steps_taken(6, 4)),
    "batch_size": Case(16, examples_seen(6 * 8, 2 * (16 + 16 + 8))),
    "micro_batch_size": Case(4, other_draws),
    "learning_rate": Case(0.02, rates(*(2 * share for share in LINEAR))),
    "head_learning_rate": Case(0.5, moved),
    "schedule.name": Case("cosine", rates(*COSINE)),
    "schedule.warmup": Case(3, rates(0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3)),
    "schedule.cycles": Case(2, rates(*RESTARTS), {"schedule": {"name": "cosine_with_restarts"}}),
    "schedule.factor": Case(0.5, rates(1, 1, 0.5, 0.5, 0.25, 0.25), {"schedule": {"name": "step"}}),
    "schedule.step_every": Case(
        1, rates(*(0.1**k for k in range(6))), {"schedule": {"name": "step"}}
    ),
    "schedule.patience": Case(
        0, sooner, {"schedule": {"name": "plateau", "patience": 10}, "learning_rate": 1.0}
    ),
    "optimizer.name": Case("sgd", moved_by_the_gradient),
    "optimizer.weight_decay": Case(0.5, decayed),
    "optimizer.arguments": Case({"betas": [0.5, 0.9]}, later_steps),
    "clip_norm": Case(0.01, moved_by_the_clipped_gradient, {"optimizer": {"name": "sgd"}}),
    "label_smoothing": Case(0.3, smoothed),
    "precision": Case("bf16", rounded),
    "evaluate_every": Case(3, evaluations(3, 6)),
    "logging_every": Case(2, every_second),
    "early_stopping.patience": Case(
        1, steps_taken(12, 4), {"learning_rate": 1e-9, "max_steps": 12}
    ),
    "early_stopping.min_improvement": Case(
        10.0,
        steps_taken(6, 4),
        {"early_stopping": {"patience": 1}, "best_by": "loss", "learning_rate": 0.003},
    ),
    "group_by_length": Case(False, other_order),
}
ELSEWHERE = {
    "save_every": "checkpoints", "keep_checkpoints": "checkpoints",
    "keep_every": "checkpoints", "select": "result",
    "best_by": "result", "workers": "processes", "gradient_checkpointing": "model",
    "compile": "model", "max_skipped": "tests/training/test_numbers.py",
    "max_seconds": "tests/test_budgets.py",
}  # fmt: skip


def fields(section: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, about in section.model_fields.items():
        inner = about.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += fields(inner, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def run(folder, *changes):
    training = BASE
    for change in changes:
        training = merge(training, change)
    return session.run(
        tiny_runs.run_file(folder, {"training": training}), options=tiny_runs.quiet()
    )


def test_every_field_has_a_case():
    assert sorted({*CURVES, *ELSEWHERE}) == sorted(fields(Config))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Return runs by what was laid under: most cases share one."""
    made: dict[str, Run] = {}

    def base(under):
        if str(under) not in made:
            made[str(under)] = run(tmp_path_factory.mktemp("base"), under)
        return made[str(under)]

    return base


@pytest.mark.slow
@pytest.mark.parametrize("key", CURVES)
def test_a_field_does_to_the_curve_what_it_says(key, tmp_path, bases):
    case = CURVES[key]
    changed = run(tmp_path, case.under, nested(key, case.value))
    case.effect(bases(case.under), changed)


def steps(run):
    return sorted(path.name for path in run.checkpoints.glob("step-*"))


@pytest.mark.slow
def test_checkpoints_come_as_often_and_stay_as_long_as_said(tmp_path):
    last = {"evaluate_every": 0, "save_every": 2}
    every_two = steps(run(tmp_path / "a", last))
    every_three = steps(run(tmp_path / "b", last, {"save_every": 3}))
    fewer = steps(run(tmp_path / "c", last, {"keep_checkpoints": 1}))
    assert every_two == ["step-000000", "step-000002", "step-000004", "step-000006"]
    assert every_three == ["step-000000", "step-000003", "step-000006"]
    assert fewer == ["step-000000", "step-000006"]
    some = steps(
        run(tmp_path / "d", last, {"keep_checkpoints": 1, "keep_every": 2, "save_every": 5})
    )
    assert some == [f"step-{step:06d}" for step in (0, 2, 4, 5, 6)]  # 5 is the newest of the others


@pytest.mark.slow  # small losses and scores: test_loop_arithmetic.py
def test_best_by_and_select_choose_the_adapter(tmp_path):
    worse = {"learning_rate": 1.0, "optimizer": {"name": "sgd"}, "clip_norm": 0}
    best = run(tmp_path / "a", worse, {"best_by": "loss"}).read_result()
    last = run(tmp_path / "b", worse, {"best_by": "loss", "select": "last"}).read_result()
    other = run(tmp_path / "c", worse, {"best_by": "macro_f1"}).read_result()
    assert (best["selected_by"], other["selected_by"], last["selected_by"]) == (
        "loss", "macro_f1", None,
    )  # fmt: skip
    assert last["selected_step"] == 6


@pytest.mark.slow
def test_workers_are_processes(tmp_path, monkeypatch):
    import multiprocessing.process as process

    started = []
    real = process.BaseProcess.start
    monkeypatch.setattr(process.BaseProcess, "start", lambda self: started.append(1) or real(self))
    run(tmp_path / "a", {"workers": 2})
    assert len(started) == 2


@pytest.mark.slow
def test_gradient_checkpointing_is_on_in_the_model(tmp_path, monkeypatch):
    import transformers.modeling_utils

    calls = []
    real = transformers.modeling_utils.checkpoint
    monkeypatch.setattr(
        transformers.modeling_utils, "checkpoint", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    plain = run(tmp_path / "a")
    assert not calls
    checkpointed = run(tmp_path / "b", {"gradient_checkpointing": True})
    assert calls
    assert checkpointed.metrics.read_bytes() == plain.metrics.read_bytes()


@pytest.mark.slow
def test_compile_gives_the_model_to_torch(tmp_path, monkeypatch):
    import torch

    given = []
    monkeypatch.setattr(torch, "compile", lambda model: given.append(model) or model)
    run(tmp_path, {"compile": True})
    assert len(given) == 1


@pytest.mark.parametrize(
    "change", [nested(field, "no such value") for field in sorted({*CURVES, *ELSEWHERE})], ids=str
)
def test_a_value_that_makes_no_sense_is_refused(tmp_path, change):
    with pytest.raises(ConfigError, match="training"):
        tiny_runs.run_file(tmp_path, {"training": change})


def test_fp16_is_refused_without_a_gpu(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        run(tmp_path, {"precision": "fp16"})
