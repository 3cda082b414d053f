"""Where a run goes: one that came to nothing is replaced, one with checkpoints says what is other now."""

import logging
import signal

import pytest
import tiny_runs
from typer.testing import CliRunner

from graftlab import config, runfile
from graftlab.cli import app
from graftlab.contracts import Note
from graftlab.errors import ConfigError, DataError, Stopped
from graftlab.rundir.run import Run
from graftlab.runs import place, session
from graftlab.training.step import Stepper

QUIET = session.Options(quiet=True)


def changed(folder, **training):
    return tiny_runs.run_file(folder, {"training": training})


def fail(folder):
    """Carry out a run whose data cannot be used."""
    file = tiny_runs.run_file(folder)
    train = file.task.config.files.train
    rows = train.read_text()
    train.write_text(rows + "no such label,,,\n")
    with pytest.raises(DataError):
        session.run(file, options=QUIET)
    train.write_text(rows)
    return Run(folder / "runs" / "tiny")


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew_by_the_same_command(
    tmp_path, caplog
):
    failed = fail(tmp_path)
    (failed.path / "my notes.txt").write_text("keep")
    with caplog.at_level(logging.WARNING, "graftlab"):
        done = session.run(changed(tmp_path, max_steps=4), options=QUIET)
    assert done.path == failed.path
    said = [r.args[0] for r in caplog.records if r.args and isinstance(r.args[0], Note)]
    [note] = [note for note in said if note.kind == "run_replaced"]
    assert note.fields["folder"] == str(failed.path)
    assert note.fields["cause"].startswith("DataError")
    assert note.fields["changed"] == ["training.max_steps: 12 -> 4"]
    assert done.finished
    assert (failed.path / "my notes.txt").read_text() == "keep"
    assert "Traceback" not in done.log.read_text()
    assert "Traceback" in (failed.path / place.REPLACED_LOG).read_text()


@pytest.mark.slow
def test_what_is_begun_anew_is_the_run_that_it_would_have_been(tmp_path):
    fail(tmp_path)
    again = session.run(tiny_runs.run_file(tmp_path), options=QUIET)
    alone = session.run(tiny_runs.run_file(tmp_path), tmp_path / "alone", options=QUIET)
    assert again.metrics.read_bytes() == alone.metrics.read_bytes()
    names = {path.name for path in again.path.iterdir()}
    assert names == {place.REPLACED_LOG, *(path.name for path in alone.path.iterdir())}


def refused(file, **options):
    with pytest.raises(ConfigError) as raised:
        session.run(file, options=session.Options(quiet=True, **options))
    [problem] = raised.value.problems
    return problem


def arguments(problem):
    return {
        (part.name, part.value)
        for remedy in problem.remedies
        for part in remedy
        if not isinstance(part, str)
    }


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that was stopped after step 5, with checkpoints."""
    real = Stepper.step

    def stopping(self, step, rate):
        if step == 5:
            signal.raise_signal(signal.SIGTERM)
        return real(self, step, rate)

    with monkeypatch.context() as during:
        during.setattr(Stepper, "step", stopping)
        with pytest.raises(Stopped):
            session.run(tiny_runs.run_file(tmp_path), options=QUIET)
    run = Run(tmp_path / "runs" / "tiny")
    assert place.has_trained(run)
    return run


def test_a_run_with_checkpoints_says_which_keys_differ_and_the_ways_on(stopped, tmp_path):
    problem = refused(changed(tmp_path, learning_rate=0.02, workers=1))
    assert (problem.kind, problem.given) == ("not_finished", str(stopped.path))
    assert problem.allowed == ["training.learning_rate"]
    assert {("override", ("training.learning_rate",)), ("new", True)} <= arguments(problem)
    assert f"graftlab resume {stopped.path}" in str(problem.remedies)


def test_where_no_key_differs_there_is_nothing_to_override(stopped, tmp_path):
    problem = refused(changed(tmp_path, workers=1))
    assert problem.allowed is None
    assert "override" not in {name for name, _ in arguments(problem)}


@pytest.mark.slow
def test_with_override_the_run_goes_on_with_the_key_as_the_file_has_it_now(stopped, tmp_path):
    options = session.Options(quiet=True, override=("training.learning_rate",))
    done = session.run(changed(tmp_path, learning_rate=0.02), options=options)
    assert done.path == stopped.path
    written = config.read_yaml(done.config)
    assert written["training"]["learning_rate"] == 0.02
    assert written["task"]["labels"] == ["bad", "good"]  # as they were found
    [note] = done.read_result()["not_exact"]
    assert (note["kind"], note["key"], note["now"]) == (
        "config_changed",
        "training.learning_rate",
        0.02,
    )


def test_other_keys_than_those_are_refused_and_nothing_is_written(stopped, tmp_path):
    before = stopped.config.read_bytes()
    problem = refused(
        changed(tmp_path, learning_rate=0.02, clip_norm=0.5), override=("training.learning_rate",)
    )
    assert set(problem.allowed) == {"training.learning_rate", "training.clip_norm"}
    assert stopped.config.read_bytes() == before


def test_override_without_a_run_to_go_on_with_is_refused(tmp_path):
    problem = refused(tiny_runs.run_file(tmp_path), override=("training.learning_rate",))
    assert problem.kind == "no_effect"
    assert not (tmp_path / "runs").exists()


def test_a_folder_with_damaged_checkpoints_alone_is_not_taken_away(tmp_path):
    run = fail(tmp_path)
    (run.checkpoints / "step-000003.corrupt").mkdir(parents=True)
    assert refused(tiny_runs.run_file(tmp_path)).kind == "not_finished"


def test_a_run_that_another_process_holds_is_not_replaced(tmp_path):
    import subprocess
    import sys

    run = fail(tmp_path)
    code = (
        "import sys, pathlib; from graftlab.rundir.run import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    problem = refused(tiny_runs.run_file(tmp_path))
    typed = CliRunner().invoke(app, ["resume", str(run.path)])
    process.communicate()
    assert problem.kind == "in_use"
    assert (typed.exit_code, f"process {process.pid}" in typed.output) == (2, True)
    assert run.started


def test_a_damaged_config_of_a_run_that_came_to_nothing_is_no_dead_end(tmp_path):
    run = fail(tmp_path)
    run.config.write_text("{")
    assert session.run(runfile.resolve(config.read(tmp_path / "run.yaml")), options=QUIET).finished
