"""A signal ends a run with its state saved, in every phase, and the run goes on to the same bytes.

Slow: a fresh process for each phase of a run.
"""

import os
import signal
import socket
import time

import pytest
import tiny_runs
from test_crash import SAME, go_on, in_child

from graftlab.errors import ConfigError, GraftlabError
from graftlab.rundir.run import Run
from graftlab.runs import prediction, session
from graftlab.training import checkpoint
from graftlab.training.loop import Loop
from graftlab.training.step import Stepper

pytestmark = pytest.mark.slow  # whole runs, stopped by real signals


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("signals")


@pytest.fixture(scope="module")
def file(home):
    return tiny_runs.run_file(home, {"training": {"workers": 2}})


@pytest.fixture(scope="module")
def expected(file, home):
    session.run(file, home / "left alone", options=tiny_runs.quiet())
    return {name: (home / "left alone" / name).read_bytes() for name in SAME}


def before(owner, name, action, number=1):
    """Do `action` at the `number`-th call of a function, before it."""
    real, calls = getattr(owner, name), iter(range(1, 10**6))

    def call(*arguments, **named):
        if next(calls) == number:
            action()
        return real(*arguments, **named)

    setattr(owner, name, call)


def send(*signals, everyone=False):
    def action():
        for number in signals:
            (os.killpg if everyone else os.kill)(os.getpgrp() if everyone else os.getpid(), number)
            time.sleep(0.05)

    return action


def ended_with(file, path, *hooks):
    """Run in a child with its own process group; return the code that the command would exit with."""

    def work():
        os.setpgrp()
        for owner, name, action, number in hooks:
            before(owner, name, action, number)
        try:
            go_on(file, path)
        except GraftlabError as error:
            os._exit(error.exit_code)
        except KeyboardInterrupt:
            os._exit(99)

    return in_child(work)


PHASES = {
    "reading the data": lambda file: (file.task.module, "read", 1),
    "a step": lambda _: (Stepper, "_update", 5),
    "an evaluation": lambda _: (prediction, "predict", 1),
    "saving": lambda _: (checkpoint, "save", 3),
    "the last evaluation": lambda _: (prediction, "predict", 3),
    "scoring": lambda _: (prediction, "predict", 5),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("number", "code", "everyone"),
    [
        pytest.param(signal.SIGTERM, 143, False, marks=pytest.mark.slow),
        (signal.SIGTERM, 143, True),
        pytest.param(signal.SIGINT, 130, True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_any_phase_saves_and_the_run_goes_on(
    file, home, expected, phase, number, code, everyone
):
    owner, name, call = PHASES[phase](file)
    path = home / f"{phase} {code} {everyone}"
    assert ended_with(file, path, (owner, name, send(number, everyone=everyone), call)) == code
    assert not Run(path).finished
    assert checkpoint.find(path / "checkpoints").problems == []
    assert in_child(lambda: go_on(file, path)) == 0
    for same, content in expected.items():
        assert (path / same).read_bytes() == content, same
    assert Run(path).read_result()["exact"]


def test_a_step_that_was_under_way_is_finished_and_saved(file, home):
    path = home / "step finished"
    ended_with(file, path, (Stepper, "_update", send(signal.SIGTERM), 5))
    assert checkpoint.steps(path / "checkpoints")[-1] == 5


def test_a_second_interrupt_leaves_at_once(file, home):
    path = home / "twice"
    twice = send(signal.SIGINT, signal.SIGINT)
    assert ended_with(file, path, (Stepper, "_update", twice, 5)) == 99
    assert checkpoint.steps(path / "checkpoints")[-1] == 4
    assert in_child(lambda: go_on(file, path)) == 0


def test_a_closed_terminal_does_not_stop_a_run(file, home):
    path = home / "hangup"
    hangup = send(signal.SIGHUP, everyone=True)
    assert ended_with(file, path, (Stepper, "_update", hangup, 5)) == 0
    assert Run(path).finished


def test_a_second_process_is_told_who_has_the_run(file, home):
    path = home / "taken"
    messages = []

    def another():
        for attempt in (lambda: session.run(file, path), lambda: session.resume(path)):
            child = os.fork()
            if not child:
                try:
                    attempt()
                except ConfigError as error:
                    named = f"process {os.getppid()} on {socket.gethostname()}" in str(error)
                    os._exit(error.exit_code if named else 1)
                os._exit(0)
            messages.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0 if messages == [2, 2] else 1)

    assert ended_with(file, path, (Stepper, "_update", another, 3)) == 0


def test_the_lock_of_a_killed_run_is_free_while_its_workers_still_live(file, home):
    path = home / "orphans"
    assert ended_with(file, path, (Stepper, "_update", send(signal.SIGKILL), 3)) == -signal.SIGKILL
    assert (path / "lock").read_text().startswith("process ")
    assert Run(path).held_by() is None
    assert in_child(lambda: go_on(file, path)) == 0


def test_no_worker_outlives_a_run_that_was_stopped(file, home):
    def work():
        import multiprocessing

        before(Loop, "_stop", lambda: None)
        before(Stepper, "_update", send(signal.SIGTERM), 5)
        try:
            go_on(file, home / "no worker")
        except GraftlabError:
            os._exit(len(multiprocessing.active_children()))

    assert in_child(work) == 0
