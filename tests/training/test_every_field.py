"""Every field of `training:` does something: another run, another record, or a refusal.

A new field without a case here fails the first test.
"""

from typing import Any

import pytest
import tiny_runs
from pydantic import BaseModel

from graftlab.config import merge
from graftlab.errors import ConfigError
from graftlab.runs import session
from graftlab.training.config import Config

BASE = {
    "max_steps": 6, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.01,
    "logging_every": 1, "evaluate_every": 2, "save_every": 2, "schedule": {"warmup": 0},
}  # fmt: skip

# field -> (what the run has instead, what must be laid under both for it to matter)
CURVES: dict[str, tuple[Any, dict[str, Any]]] = {
    "epochs": (2, {"max_steps": 0, "epochs": 1}),
    "max_steps": (4, {}),
    "batch_size": (16, {}),
    "micro_batch_size": (4, {}),
    "learning_rate": (0.02, {}),
    "head_learning_rate": (0.5, {}),
    "schedule.name": ("cosine", {}),
    "schedule.warmup": (3, {}),
    "schedule.cycles": (2, {"schedule": {"name": "cosine_with_restarts"}}),
    "schedule.factor": (0.5, {"schedule": {"name": "step"}}),
    "schedule.step_every": (1, {"schedule": {"name": "step"}}),
    "schedule.patience": (0, {"schedule": {"name": "plateau"}, "learning_rate": 1.0}),
    "optimizer.name": ("sgd", {}),
    "optimizer.weight_decay": (0.5, {}),
    "optimizer.arguments": ({"betas": [0.5, 0.9]}, {}),
    "clip_norm": (0.01, {"optimizer": {"name": "sgd"}}),
    "label_smoothing": (0.3, {}),
    "precision": ("bf16", {}),
    "evaluate_every": (3, {}),
    "logging_every": (2, {}),
    "early_stopping.patience": (1, {"learning_rate": 1e-9, "max_steps": 12}),
    "early_stopping.min_improvement": (
        10.0, {"early_stopping": {"patience": 1}, "best_by": "loss", "learning_rate": 0.003},
    ),
    "group_by_length": (False, {}),
}  # fmt: skip
ELSEWHERE = {
    "save_every": "checkpoints", "keep_checkpoints": "checkpoints",
    "keep_every": "checkpoints", "select": "result",
    "best_by": "result", "workers": "processes", "gradient_checkpointing": "model",
    "compile": "model", "max_skipped": "tests/training/test_numbers.py",
}  # fmt: skip


def fields(section: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += fields(inner, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def nested(field: str, value: Any) -> dict[str, Any]:
    for part in reversed(field.split(".")):
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
    """Return metrics by what was laid under: most cases share one run."""
    made: dict[str, bytes] = {}

    def base(under):
        if str(under) not in made:
            made[str(under)] = run(tmp_path_factory.mktemp("base"), under).metrics.read_bytes()
        return made[str(under)]

    return base


@pytest.mark.slow
@pytest.mark.parametrize("field", CURVES)
def test_a_field_changes_the_curve(field, tmp_path, bases):
    value, under = CURVES[field]
    changed = run(tmp_path, under, nested(field, value)).metrics.read_bytes()
    assert changed != bases(under)


def steps(run):
    return sorted(path.name for path in run.checkpoints.glob("step-*"))


def test_checkpoints_come_as_often_and_stay_as_long_as_said(tmp_path):
    last = {"evaluate_every": 0, "keep_checkpoints": 9}
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


def test_best_by_and_select_choose_the_adapter(tmp_path):
    worse = {"learning_rate": 1.0, "optimizer": {"name": "sgd"}, "clip_norm": 0}
    best = run(tmp_path / "a", worse, {"best_by": "loss"}).read_result()
    last = run(tmp_path / "b", worse, {"best_by": "loss", "select": "last"}).read_result()
    other = run(tmp_path / "c", worse, {"best_by": "macro_f1"}).read_result()
    assert (best["selected_by"], other["selected_by"], last["selected_by"]) == (
        "loss", "macro_f1", None,
    )  # fmt: skip
    assert last["selected_step"] == 6


def test_workers_are_processes(tmp_path, monkeypatch):
    import multiprocessing.process as process

    started = []
    real = process.BaseProcess.start
    monkeypatch.setattr(process.BaseProcess, "start", lambda self: started.append(1) or real(self))
    run(tmp_path / "a", {"workers": 2})
    assert len(started) == 2


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
