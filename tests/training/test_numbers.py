"""Numbers that are not finite never reach the weights; memory that runs out halves the micro-batch only."""

import itertools
import json

import probe
import pytest
import tiny_runs
import torch
from faults import fault
from safetensors.torch import load_file

from graftlab.errors import ConfigError, Diverged, OutOfMemory, Stopped
from graftlab.rundir.lines import read_lines
from graftlab.rundir.run import Run
from graftlab.runs import session


@pytest.fixture(autouse=True)
def _probe(tmp_path, monkeypatch):
    with probe.installed(tmp_path / "probe", monkeypatch):
        yield


def run(tmp_path, changes=None, **asked):
    """Return a run of 12 steps in which what is asked of the probe goes wrong."""
    hooks = [{"name": "probe", **asked}] if asked else []
    file = tiny_runs.run_file(tmp_path, {**(changes or {}), "hooks": hooks})
    return session.run(file, options=tiny_runs.quiet())


def weights(done, step):
    """Return all trainable weights after a step."""
    tensors = load_file(done.checkpoints / f"step-{step:06d}" / "trainable.safetensors")
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.mark.quick("logits-nan")
@pytest.mark.parametrize(
    ("what", "value"),
    [("logits", "nan"), ("logits", "-inf"), ("gradients", "nan"), ("gradients", "inf")],
)
def test_a_step_that_is_not_finite_is_skipped_counted_and_a_gap(tmp_path, what, value, caplog):
    kept = {"training": {"save_every": 1, "keep_checkpoints": 99}}
    done = run(tmp_path, kept, spoil=what, values={5: value})
    after = [weights(done, step) for step in range(13)]
    moved = [not torch.equal(*two) for two in itertools.pairwise(after)]
    # warmup begins at a rate of 0
    assert [step for step, has in enumerate(moved, start=1) if not has] == [1, 5]
    assert all(torch.isfinite(w).all() for w in after)
    assert done.read_result()["skipped_steps"] == 1
    rows = done.read_metrics()
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert [step for step, loss in losses.items() if loss is None] == [5]
    assert [row["step"] for row in rows if row.get("skipped")] == [5]
    [said] = [record for record in caplog.records if "skipped" in record.msg]
    step, *_, examples = said.args
    assert (step, len(examples)) == (5, 8)


@pytest.mark.slow
def test_a_gap_is_not_averaged_into_the_steps_around_it(tmp_path):
    plain = run(tmp_path / "plain", {"training": {"learning_rate": 1e-12}})
    slow = {"training": {"learning_rate": 1e-12, "logging_every": 3}}
    rows = run(tmp_path / "spoiled", slow, spoil="logits", values={5: "nan"}).read_metrics()
    each = {row["step"]: row["loss"] for row in plain.read_metrics() if "loss" in row}
    mean = {row["step"]: row["loss"] for row in rows if row.get("loss") is not None}
    assert mean[3] == pytest.approx((each[1] + each[2] + each[3]) / 3, rel=1e-5)
    assert mean[6] == pytest.approx((each[4] + each[6]) / 2, rel=1e-5)


def test_several_in_a_row_stop_the_run(tmp_path):
    spoiled = {"spoil": "logits", "values": dict.fromkeys((4, 6, 7, 8), "nan")}
    with pytest.raises(Diverged) as caught:
        run(tmp_path, {"training": {"max_skipped": 3}}, **spoiled)
    assert caught.value.exit_code == 6
    rows = read_lines(tmp_path / "runs" / "tiny" / "metrics.jsonl")
    assert [row["step"] for row in rows if row.get("skipped")] == [4, 6, 7, 8]


SHORT = {"training": {"max_steps": 4, "max_skipped": 8}}


def test_a_run_in_which_no_step_was_taken_fails_however_short_it_is(tmp_path):
    with pytest.raises(Diverged, match="all 4 steps") as caught:
        run(tmp_path, SHORT, spoil="logits", values=dict.fromkeys(range(1, 5), "nan"))
    assert caught.value.exit_code == 6
    made = Run(tmp_path / "runs" / "tiny")
    assert not made.finished
    assert not made.adapter.exists()
    with pytest.raises(Diverged, match="all 4 steps"):  # its last checkpoint is of the last step
        session.resume(made.path)


@pytest.mark.slow
def test_one_step_that_was_taken_is_a_run(tmp_path):
    done = run(tmp_path, SHORT, spoil="logits", values=dict.fromkeys((1, 2, 4), "nan"))
    assert done.read_result()["skipped_steps"] == 3


def test_a_validation_loss_that_is_not_finite_is_never_the_best(tmp_path):
    spoiled = {"spoil": "evaluation", "values": {4: "nan", 12: "-inf"}}
    done = run(tmp_path, {"training": {"best_by": "loss"}}, **spoiled)
    assert done.read_result()["selected_step"] == 8
    rows = [row for row in done.read_metrics() if "validation/loss" in row]
    assert [row["validation/loss"] is None for row in rows] == [True, False, True]


WHOLE = {
    "training": {"micro_batch_size": 0},
    "backbone": {"dropout": 0.0},
    "method": {"name": "lora", "dropout": 0.0},
}


@pytest.mark.slow  # small loops: test_plain_memory.py
@pytest.mark.parametrize("workers", [0, 2])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(tmp_path, workers):
    changes = {**WHOLE, "training": {"micro_batch_size": 0, "workers": workers}}
    plain = run(tmp_path / "plain", changes).read_metrics()
    done = run(tmp_path / "small", changes, room=3)
    result = done.read_result()
    sizes = result["facts"]["sizes"]
    assert sizes == [8, 4] + [2] * 4 * 12
    # without dropout the sums are the same but for their order
    for ours, theirs in zip(done.read_metrics(), plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert not result["exact"]
    assert result["not_exact"] == [{"kind": "memory_ran_out", "now": 2, "asked": 8}]


@pytest.mark.slow
def test_an_allocator_of_the_cpu_counts_too(tmp_path):
    said = "DefaultCPUAllocator: can't allocate memory: you"
    assert run(tmp_path, WHOLE, room=4, error=said).read_result()["not_exact"]


@pytest.mark.slow
def test_hooks_are_told_that_a_step_begins_again(tmp_path):
    done = run(tmp_path, WHOLE, room=4)
    assert done.read_result()["facts"]["started"] == [1, *range(1, 13)]


@pytest.mark.slow
def test_a_micro_batch_that_was_cut_stays_cut_after_a_resume(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path, WHOLE, room=4, stop=6)
    result = session.resume(tmp_path / "runs" / "tiny", tiny_runs.quiet()).read_result()
    assert result["facts"] == {"started": [*range(7, 13)], "sizes": [4] * 2 * 6}
    assert result["not_exact"] == [{"kind": "memory_ran_out", "now": 4, "asked": 8}]


@pytest.mark.slow
def test_one_example_that_does_not_fit_ends_with_three_ways_out(tmp_path):
    with pytest.raises(OutOfMemory) as caught:
        run(tmp_path, room=0)
    assert caught.value.exit_code == 5
    for text in ("single example", "MiB", "largest", "max_length", "checkpointing", "bfloat16"):
        assert text in str(caught.value)


@pytest.mark.slow
def test_memory_that_runs_out_in_the_optimizer_is_said_as_such(tmp_path, monkeypatch):
    def step(self):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(OutOfMemory, match="optimizer"):
        run(tmp_path)


@pytest.mark.slow
def test_another_error_of_the_model_is_not_taken_for_memory(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path, room=0, error="shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"learning_rate": 0}, "training.learning_rate"),
        ({"learning_rate": -1e-3}, "training.learning_rate"),
        ({"learning_rate": 1e3}, "training.learning_rate"),
        ({"epochs": 0}, "training.epochs"),
        ({"batch_size": 0}, "training.batch_size"),
        ({"batch_size": 4, "micro_batch_size": 8}, "training.micro_batch_size"),
        ({"label_smoothing": 1.0}, "training.label_smoothing"),
        ({"schedule": {"warmup": 13}}, "training.schedule.warmup"),
        ({"early_stopping": {"patience": 1}, "evaluate_every": 0}, "training.early_stopping"),
        ({"schedule": {"name": "plateau"}, "evaluate_every": 0}, "training.schedule"),
        ({"save_every": -1}, "training.save_every"),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_loaded(tmp_path, changes, key):
    with pytest.raises(ConfigError, check=fault(key=key)):
        tiny_runs.run_file(tmp_path, {"training": changes})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"batch_size": 41}, "training.batch_size"),
        (
            {"max_steps": 0, "epochs": 0.2, "schedule": {"warmup": 2}},
            "training.schedule.warmup",
        ),
        ({"best_by": "matthews"}, "training.best_by"),
    ],
)
def test_what_only_the_data_can_tell_is_refused_before_the_first_step(tmp_path, changes, key):
    with pytest.raises(ConfigError, check=fault(key=key)):
        run(tmp_path, {"training": changes})
    assert not list(tmp_path.rglob("step-*"))


@pytest.mark.slow
def test_lines_are_json_without_nan(tmp_path):
    text = run(tmp_path, spoil="gradients", values={5: "nan"}).metrics.read_text()
    assert "NaN" not in text
    assert json.loads(text.splitlines()[4])["gradient_norm"] is None or "skipped" in text


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path):
    from graftlab.rundir.lines import Lines

    path = tmp_path / "timing.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    lines = Lines(path)
    lines.append({"step": 2})
    lines.close()
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
