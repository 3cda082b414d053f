"""What a resumed run may differ in, what it refuses, and what it says; and a run again from its record."""

import hashlib
import json
import signal
import subprocess
import sys

import pytest
import tiny_runs
import torch
from faults import fault

from graftlab import config
from graftlab.errors import CheckpointError, ConfigError, DataError, DiskError, ModelError, Stopped
from graftlab.runs import execution, outcome, prediction, session
from graftlab.runs.session import Options
from graftlab.training import checkpoint
from graftlab.training.loop import Loop
from graftlab.training.step import Stepper

pytestmark = pytest.mark.slow  # whole runs, gone on with


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that was stopped after step 5, with checkpoints 0, 3, 4 (the best) and 5."""
    real = Stepper.step

    def stopping(self, step, rate):
        if step == 5:
            signal.raise_signal(signal.SIGTERM)
        return real(self, step, rate)

    with monkeypatch.context() as during:
        during.setattr(Stepper, "step", stopping)
        with pytest.raises(Stopped):
            session.run(tiny_runs.run_file(tmp_path), options=tiny_runs.quiet())
    return tmp_path / "runs" / "tiny"


def edit(path, before, after):
    text = (path / "config.yaml").read_text()
    assert text.count(before) == 1, text
    (path / "config.yaml").write_text(text.replace(before, after))


def resume(path, **options):
    return session.resume(path, Options(quiet=True, **options))


def test_a_resume_in_the_same_place_is_exact(stopped):
    done = resume(stopped)
    assert done.read_result()["exact"]
    assert json.loads(done.environment.read_text())["resumes"] == [{"step": 5, "changed": []}]


def test_changed_settings_are_listed_with_both_values_and_refused(stopped):
    edit(stopped, "learning_rate: 0.01", "learning_rate: 0.02")
    edit(stopped, "rank: 2", "rank: 3")
    with pytest.raises(ConfigError) as caught:
        resume(stopped)
    assert caught.value.exit_code == 2
    changed = {p.place.key[0]: (p.allowed, p.given) for p in caught.value.problems}
    assert changed == {"training.learning_rate": (0.01, 0.02), "method.rank": (2, 3)}


def test_an_override_goes_on_and_marks_the_run(stopped):
    edit(stopped, "learning_rate: 0.01", "learning_rate: 0.02")
    done = resume(stopped, override=("training.learning_rate",))
    result = done.read_result()
    changed = {"key": "training.learning_rate", "before": 0.01, "now": 0.02}
    assert result["not_exact"] == [{"kind": "config_changed", **changed}]
    rates = {row["step"]: row["learning_rate"] for row in done.read_metrics() if "loss" in row}
    assert rates[6] == pytest.approx(2 * rates[5] * 7 / 8)  # linear: 8 shares left at 5, 7 at 6


def test_another_shape_is_refused_even_with_an_override(stopped):
    edit(stopped, "rank: 2", "rank: 3")
    with pytest.raises(CheckpointError, match=r"lora_A.*does not fit"):
        resume(stopped, override=("method.rank",))


def test_a_smaller_micro_batch_can_be_asked_for_on_resume(stopped, monkeypatch):
    edit(stopped, "micro_batch_size: 4", "micro_batch_size: 2")
    sizes = set()
    from graftlab.tasks.classification import TextTask

    real = TextTask.loss
    monkeypatch.setattr(TextTask, "loss", lambda *a: sizes.add(len(a[2]["labels"])) or real(*a))
    resume(stopped, override=("training.micro_batch_size",))
    assert sizes == {2}


def test_what_changes_no_bit_may_change(stopped, tmp_path):
    whole = session.run(tiny_runs.run_file(tmp_path / "whole"), options=tiny_runs.quiet())
    edit(stopped, "workers: 0", "workers: 2")
    edit(stopped, "save_every: 3", "save_every: 5")
    edit(stopped, "keep_checkpoints: 2", "keep_checkpoints: 1")
    done = resume(stopped)
    assert done.read_result()["exact"]
    weights = "adapter_model.safetensors"
    assert (done.adapter / weights).read_bytes() == (whole.adapter / weights).read_bytes()


def test_changed_data_are_refused(stopped, tmp_path):
    tiny_runs.write_rows(tmp_path / "data" / "train.csv", 40, seed=9)
    with pytest.raises(DataError, check=fault("changed")) as caught:
        resume(stopped)
    assert caught.value.exit_code == 3


def edit_record(path, change):
    values = json.loads((path / "environment.json").read_text())
    change(values)
    (path / "environment.json").write_text(json.dumps(values))


def test_changed_weights_are_refused(stopped):
    edit_record(stopped, lambda record: record["backbone"].update(sha256={"model": "another"}))
    with pytest.raises(ModelError, check=fault("changed")) as caught:
        resume(stopped)
    assert caught.value.exit_code == 4


def test_another_machine_goes_on_and_marks_the_run_each_reason_once(stopped):
    def elsewhere(record):
        record["threads"]["torch"] = 64
        record["packages"]["torch"] = "1.0"

    edit_record(stopped, elsewhere)
    result = resume(stopped).read_result()
    assert not result["exact"]
    assert [(note["kind"], note["key"], note["before"]) for note in result["not_exact"]] == [
        ("environment_changed", "packages.torch", "1.0"),
        ("environment_changed", "threads.torch", 64),
    ]


def test_without_its_record_a_run_is_refused(stopped):
    (stopped / "environment.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        resume(stopped)
    assert caught.value.problems[0].place.file == str(stopped / "environment.json")


def test_a_damaged_checkpoint_is_walked_past_to_the_same_bytes(stopped, tmp_path):
    whole = session.run(tiny_runs.run_file(tmp_path / "whole"), options=tiny_runs.quiet())
    weights = stopped / "checkpoints" / "step-000005" / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    done = resume(stopped)
    assert done.read_result()["exact"]
    assert done.metrics.read_bytes() == whole.metrics.read_bytes()
    log = done.log.read_text()
    assert "step-000005.corrupt" in log
    assert "step-000004" in log


def test_all_checkpoints_bad_is_exit_7_and_weights_alone_go_on_when_allowed(stopped):
    for step in (0, 3, 4, 5):
        (stopped / "checkpoints" / checkpoint.name(step) / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        resume(stopped)
    assert caught.value.exit_code == 7
    done = resume(stopped, allow_inexact=True)
    damaged = {"checkpoint": "step-000005", "files": {"optimizer.safetensors": "missing"}}
    assert done.read_result()["not_exact"] == [{"kind": "checkpoint_damaged", **damaged}]


@pytest.mark.parametrize("file", ["trainable", "optimizer", "hooks"])
def test_of_the_first_checkpoint_only_what_was_computed_is_needed(stopped, file):
    (stopped / "checkpoints" / "step-000000" / f"{file}.safetensors").unlink()
    assert resume(stopped).read_result()["exact"]


@pytest.mark.parametrize("file", ["computed.safetensors", "manifest.json", ""])
def test_without_what_was_computed_a_run_is_refused(stopped, file):
    gone = stopped / "checkpoints" / "step-000000" / file
    gone.rename(stopped / "aside")
    with pytest.raises(CheckpointError, match="began"):
        resume(stopped)


def test_metrics_that_have_lost_lines_are_not_filled_with_zeros(stopped):
    text = (stopped / "metrics.jsonl").read_text()
    (stopped / "metrics.jsonl").write_text(text.splitlines(keepends=True)[0])
    done = resume(stopped)
    assert "\0" not in done.metrics.read_text()
    (note,) = done.read_result()["not_exact"]
    assert (note["kind"], note["file"], note["kept"]) == ("lines_changed", "metrics.jsonl", 1)
    assert (stopped / note["aside"]).read_text() == text.splitlines(keepends=True)[0]


def test_a_run_that_moved_goes_on(stopped, tmp_path):
    moved = tmp_path / "elsewhere" / "my run"
    moved.parent.mkdir()
    stopped.rename(moved)
    assert resume(moved).read_result()["exact"]


def test_a_place_with_a_run_is_not_begun_again_unless_asked(stopped, tmp_path):
    file = tiny_runs.run_file(tmp_path)
    with pytest.raises(ConfigError, check=fault("not_finished")):
        session.run(file, options=tiny_runs.quiet())
    assert session.directory(file, new=True).name == "tiny-2"


def test_higher_checkpoints_of_an_older_run_are_no_place_to_begin(tmp_path):
    file = tiny_runs.run_file(tmp_path)
    (tmp_path / "runs" / "tiny" / "checkpoints" / "step-000900").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        session.run(file, options=tiny_runs.quiet())
    assert caught.value.problems[0].kind == "not_finished"
    assert "new=True" in str(caught.value)


def test_a_finished_run_says_so_and_stays(stopped, caplog):
    done = resume(stopped)
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*")}
    resume(stopped)
    assert {path: path.stat().st_mtime_ns for path in done.path.rglob("*")} == before
    with pytest.raises(ConfigError, match="finished run"):
        session.run(tiny_runs.run_file(stopped.parents[1]), options=tiny_runs.quiet())


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        resume(tmp_path)


def test_what_a_run_leaves_that_was_killed_before_its_config_is_no_dead_end(tmp_path):
    (tmp_path / "runs" / "tiny" / "predictions").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "lock").write_text("process 1 on nowhere\n")
    assert session.run(tiny_runs.run_file(tmp_path), options=tiny_runs.quiet()).finished


def test_a_place_that_cannot_be_written_is_exit_8_before_anything_is_read(tmp_path, monkeypatch):
    file = tiny_runs.run_file(tmp_path)
    (tmp_path / "runs").write_text("a file, where folders should go")
    monkeypatch.setattr(execution.Execution, "carry_out", lambda _: pytest.fail("was begun"))
    with pytest.raises(DiskError) as caught:
        session.run(file, options=tiny_runs.quiet())
    assert caught.value.exit_code == 8


@pytest.mark.parametrize("file", ["metrics", "adapter", "result"])
def test_a_disk_that_fills_up_is_exit_8_and_the_run_goes_on_later(tmp_path, monkeypatch, file):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as during:
        owner, name = {
            "metrics": (Loop, "tell"),
            "adapter": (outcome, "write_adapter"),
            "result": (prediction, "write"),
        }[file]
        during.setattr(owner, name, full)
        with pytest.raises(DiskError, match="Free some room") as caught:
            session.run(tiny_runs.run_file(tmp_path), options=tiny_runs.quiet())
    assert caught.value.exit_code == 8
    assert resume(tmp_path / "runs" / "tiny").read_result()["exact"]


def test_when_a_checkpoint_does_not_fit_the_oldest_makes_room(tmp_path, monkeypatch, caplog):
    real, failures = checkpoint.save, [9]

    def save(folder, step, *rest):
        if step in failures:
            failures.remove(step)
            raise DiskError("cannot write the checkpoint of step 9: full.")
        return real(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "save", save)
    done = session.run(tiny_runs.run_file(tmp_path), options=tiny_runs.quiet())
    assert done.finished
    assert any(isinstance(what, DiskError) for record in caplog.records for what in record.args)


def test_runs_of_another_precision_and_determinism_follow_each_other(tmp_path):
    for number, changes in enumerate(
        ({"deterministic": True}, {"training": {"precision": "bf16"}}, {})
    ):
        file = tiny_runs.run_file(tmp_path / str(number), {"seed": 1, **changes})
        assert session.run(file, options=tiny_runs.quiet()).finished
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_the_resolved_config_in_a_fresh_process_gives_the_same_adapter(tmp_path):
    first = session.run(tiny_runs.run_file(tmp_path), options=tiny_runs.quiet())
    again = tmp_path / "again"
    subprocess.run(
        [sys.executable, "-m", "graftlab", "run", str(first.config), "--out", str(again), "--json"],
        check=True,
        capture_output=True,
    )
    for name in ("adapter/adapter_model.safetensors", "metrics.jsonl"):
        sums = {
            hashlib.sha256((path / name).read_bytes()).hexdigest() for path in (first.path, again)
        }
        assert len(sums) == 1, name
    assert config.read_yaml(first.config) == config.read_yaml(again / "config.yaml")
