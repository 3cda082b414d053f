"""Numbers that are not finite never reach the weights; memory that runs out halves the micro-batch only."""

import json
import math

import pytest
import tiny_runs
import torch

from graftlab.contracts import Hook
from graftlab.errors import ConfigError, Diverged, OutOfMemory
from graftlab.rundir.run import read_lines
from graftlab.runs import session
from graftlab.tasks.classification import TextTask
from graftlab.training.loop import Loop
from graftlab.training.step import Stepper
from graftlab.weights import surgery


def run(tmp_path, changes=None):
    return session.run(tiny_runs.run_file(tmp_path, changes), options=tiny_runs.quiet())


def spoil_losses(monkeypatch, steps, value):
    """Make the loss of every micro-batch of some steps this value, gradients as they were."""
    now = []
    real_step, real_loss = Stepper.step, TextTask.loss

    def step(self, number, rate):
        now[:] = [number]
        return real_step(self, number, rate)

    def loss(self, *arguments):
        found = real_loss(self, *arguments)
        return found * value if now and now[0] in steps else found

    monkeypatch.setattr(Stepper, "step", step)
    monkeypatch.setattr(TextTask, "loss", loss)


def spoil_gradients(monkeypatch, steps, value):
    real = Stepper._backward

    def backward(self, step):
        done = real(self, step)
        if step in steps:
            parameter = next(p for p in self.model.parameters() if p.grad is not None)
            parameter.grad.view(-1)[0] = value
        return done

    monkeypatch.setattr(Stepper, "_backward", backward)


def watch_weights(monkeypatch):
    """Return a list that gets all trainable weights after each step."""
    found = []
    real = Loop._count

    def count(self, step, done):
        weights = surgery.trainable(self.model).values()
        found.append(torch.cat([p.detach().flatten() for p in weights]).clone())
        return real(self, step, done)

    monkeypatch.setattr(Loop, "_count", count)
    return found


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("spoil", [spoil_losses, spoil_gradients])
def test_a_step_that_is_not_finite_is_skipped_counted_and_a_gap(
    tmp_path, monkeypatch, spoil, value, caplog
):
    spoil(monkeypatch, {5}, value)
    weights = watch_weights(monkeypatch)
    done = run(tmp_path)
    assert torch.equal(weights[4], weights[3])
    assert not torch.equal(weights[5], weights[4])
    assert all(torch.isfinite(w).all() for w in weights)
    assert done.read_result()["skipped_steps"] == 1
    rows = done.read_metrics()
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert [step for step, loss in losses.items() if loss is None] == [5]
    assert any(row["step"] == 5 and row.get("skipped") for row in rows)
    assert "step 5 skipped" in caplog.text
    assert "its examples are [" in caplog.text


def test_a_gap_is_not_averaged_into_the_steps_around_it(tmp_path, monkeypatch):
    plain = run(tmp_path / "plain", {"training": {"learning_rate": 1e-12}})
    spoil_losses(monkeypatch, {5}, math.nan)
    rows = run(
        tmp_path / "spoiled", {"training": {"learning_rate": 1e-12, "logging_every": 3}}
    ).read_metrics()
    each = {row["step"]: row["loss"] for row in plain.read_metrics() if "loss" in row}
    mean = {row["step"]: row["loss"] for row in rows if row.get("loss") is not None}
    assert mean[3] == pytest.approx((each[1] + each[2] + each[3]) / 3, rel=1e-5)
    assert mean[6] == pytest.approx((each[4] + each[6]) / 2, rel=1e-5)


def test_several_in_a_row_stop_the_run(tmp_path, monkeypatch):
    spoil_losses(monkeypatch, {4, 6, 7, 8}, math.nan)
    with pytest.raises(Diverged, match="3 steps in a row, up to step 8") as caught:
        run(tmp_path, {"training": {"max_skipped": 3}})
    assert caught.value.exit_code == 6
    assert "step 8 skipped" in (tmp_path / "runs" / "tiny" / "run.log").read_text()


def test_a_gradient_of_zero_is_said(tmp_path, monkeypatch, caplog):
    spoil_losses(monkeypatch, set(range(1, 13)), 0.0)
    run(tmp_path)
    assert "the gradient is zero: nothing is trained" in caplog.text


def test_a_validation_loss_that_is_not_finite_is_never_the_best(tmp_path, monkeypatch):
    real = Loop.__init__

    def begin(self, parts, *rest):
        evaluate, calls = parts.evaluate, iter([math.nan, 0.5, math.inf])
        object.__setattr__(parts, "evaluate", lambda m: evaluate(m) | {"loss": next(calls)})
        real(self, parts, *rest)

    monkeypatch.setattr(Loop, "__init__", begin)
    done = run(tmp_path, {"training": {"best_by": "loss"}})
    assert done.read_result()["selected_step"] == 8
    rows = [row for row in done.read_metrics() if "validation/loss" in row]
    assert [row["validation/loss"] for row in rows] == [None, 0.5, None]


def small_memory(monkeypatch, limit, error=None):
    """Let forward passes in training run out of memory above `limit` examples; return the sizes tried."""
    sizes = []
    real = TextTask.loss

    def loss(self, model, batch, smoothing=0.0):
        sizes.append(len(batch["labels"]))
        if sizes[-1] > limit:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, model, batch, smoothing)

    monkeypatch.setattr(TextTask, "loss", loss)
    return sizes


WHOLE = {
    "training": {"micro_batch_size": 0},
    "backbone": {"dropout": 0.0},
    "method": {"name": "lora", "dropout": 0.0},
}


@pytest.mark.parametrize("workers", [0, 2])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(tmp_path, monkeypatch, workers):
    changes = {**WHOLE, "training": {"micro_batch_size": 0, "workers": workers}}
    plain = run(tmp_path / "plain", changes).read_metrics()
    sizes = small_memory(monkeypatch, 3)
    done = run(tmp_path / "small", changes)
    assert sizes[:6] == [8, 4, 2, 2, 2, 2]
    assert sizes[6:] == [2] * (len(sizes) - 6)
    # without dropout the sums are the same but for their order
    for ours, theirs in zip(done.read_metrics(), plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    result = done.read_result()
    assert not result["exact"]
    assert result["not_exact"] == [{"kind": "memory_ran_out", "now": 2, "asked": 8}]


def test_an_allocator_of_the_cpu_counts_too(tmp_path, monkeypatch):
    small_memory(monkeypatch, 4, RuntimeError("DefaultCPUAllocator: can't allocate memory: you"))
    assert run(tmp_path, WHOLE).read_result()["not_exact"]


def test_hooks_are_told_that_a_step_begins_again(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(Hook, "on_step_start", lambda _, step: started.append(step))
    real = Loop.__init__

    def begin(self, parts, *rest):
        object.__setattr__(parts.attached, "hooks", (Hook(),))
        real(self, parts, *rest)

    monkeypatch.setattr(Loop, "__init__", begin)
    small_memory(monkeypatch, 4)
    run(tmp_path, WHOLE)
    assert started[:3] == [1, 1, 2]


def test_a_micro_batch_that_was_cut_stays_cut_after_a_resume(tmp_path, monkeypatch):
    small_memory(monkeypatch, 4)
    with monkeypatch.context() as during:
        spoil_losses(during, set(range(6, 13)), math.nan)
        with pytest.raises(Diverged):
            run(tmp_path, {**WHOLE, "training": {"micro_batch_size": 0, "max_skipped": 1}})
    sizes = small_memory(monkeypatch, 4)
    done = session.resume(tmp_path / "runs" / "tiny", tiny_runs.quiet())
    assert max(sizes) == 4
    assert done.read_result()["not_exact"] == [{"kind": "memory_ran_out", "now": 4, "asked": 8}]


def test_one_example_that_does_not_fit_ends_with_three_ways_out(tmp_path, monkeypatch):
    small_memory(monkeypatch, 0)
    with pytest.raises(OutOfMemory) as caught:
        run(tmp_path)
    assert caught.value.exit_code == 5
    for text in ("single example", "MiB", "largest", "max_length", "checkpointing", "bfloat16"):
        assert text in str(caught.value)


def test_memory_that_runs_out_in_the_optimizer_is_said_as_such(tmp_path, monkeypatch):
    def step(self):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(OutOfMemory, match="in the optimizer's step"):
        run(tmp_path)


def test_another_error_of_the_model_is_not_taken_for_memory(tmp_path, monkeypatch):
    small_memory(monkeypatch, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0}, "training.learning_rate"),
        ({"learning_rate": -1e-3}, "training.learning_rate"),
        ({"learning_rate": 1e3}, "training.learning_rate"),
        ({"epochs": 0}, "training.epochs"),
        ({"batch_size": 0}, "training.batch_size"),
        ({"batch_size": 4, "micro_batch_size": 8}, "micro_batch_size .8. is larger"),
        ({"label_smoothing": 1.0}, "training.label_smoothing"),
        ({"schedule": {"warmup": 13}}, "warmup .13 steps. is longer"),
        ({"early_stopping": {"patience": 1}, "evaluate_every": 0}, "needs evaluations"),
        ({"schedule": {"name": "plateau"}, "evaluate_every": 0}, "needs evaluations"),
        ({"save_every": -1}, "save_every"),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_loaded(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        tiny_runs.run_file(tmp_path, {"training": changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 41}, "only 40 training examples. Set it to at most 40"),
        (
            {"max_steps": 0, "epochs": 0.2, "schedule": {"warmup": 2}},
            "longer than the run .1 steps",
        ),
        ({"best_by": "matthews"}, "training.best_by"),
    ],
)
def test_what_only_the_data_can_tell_is_refused_before_the_first_step(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, {"training": changes})
    assert not list(tmp_path.rglob("step-*"))


def test_lines_are_json_without_nan(tmp_path, monkeypatch):
    spoil_gradients(monkeypatch, {5}, math.nan)
    text = run(tmp_path).metrics.read_text()
    assert "NaN" not in text
    assert json.loads(text.splitlines()[4])["gradient_norm"] is None or "skipped" in text


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path):
    from graftlab.rundir.run import Lines

    path = tmp_path / "timing.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    lines = Lines(path)
    lines.append({"step": 2})
    lines.close()
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
