"""Killed anywhere, any number of times, a run gives the same bytes as one that was left alone.

Each case forks a child from this process, which has imported everything, and ends it with a real SIGKILL:
at a step, or at the N-th call by which something reaches the disk. About a second a case; the file takes
some two minutes, so most of it is marked `slow`, and `make check` runs one case in eight.
"""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_runs

from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.training.step import Stepper

pytestmark = pytest.mark.slow  # whole runs, killed

SAME = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "metrics.jsonl")
BREAKS = [
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "mkdir"),
    (Path, "rename"),
    (Path, "replace"),
]
WORKERS = {"training": {"workers": 2}}


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], object]) -> int:
    """Do `work` in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def go_on(file, path) -> Run:
    """Begin, or go on with, the run in `path`: what someone does who types the command again."""
    if Run(path).started:
        return session.resume(path, tiny_runs.quiet())
    return session.run(file, path, options=tiny_runs.quiet())


def die_at_step(number: int, after: bool = False) -> None:
    real = Stepper.step

    def step(self, step, rate):
        if step == number and not after:
            kill_self()
        done = real(self, step, rate)
        if step == number and after:
            kill_self()
        return done

    Stepper.step = step


def count_writes(at: Callable[[int], None]) -> None:
    """Call `at` with the number of each call that makes something durable or moves it, before it."""
    import safetensors.torch

    numbers = iter(range(1, 10**6))

    def counted(real):
        def call(*arguments, **named):
            at(next(numbers))
            return real(*arguments, **named)

        return call

    for place, name in [*BREAKS, (safetensors.torch, "save_file")]:
        setattr(place, name, counted(getattr(place, name)))


def die_at_write(number: int) -> None:
    count_writes(lambda call: kill_self() if call == number else None)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def file(home):
    return tiny_runs.run_file(home, WORKERS)


@pytest.fixture(scope="module")
def expected(file, home):
    path = home / "never killed"
    session.run(file, path, options=tiny_runs.quiet())
    return {name: (path / name).read_bytes() for name in SAME}


def assert_same(path: Path, expected: dict[str, bytes]) -> None:
    for name, content in expected.items():
        assert (path / name).read_bytes() == content, name
    result = Run(path).read_result()
    assert result["exact"], result["not_exact"]
    left = [p.name for p in (path / "checkpoints").iterdir() if p.suffix in (".partial", ".old")]
    assert not left


def few_or_slow(numbers, shown):
    return [n if n in shown else pytest.param(n, marks=pytest.mark.slow) for n in numbers]


@pytest.mark.parametrize("step", few_or_slow(range(1, 13), {1, 8}))
def test_killed_at_a_step_and_again_and_again(file, home, expected, step):
    path = home / f"step-{step}"
    assert in_child(lambda: (die_at_step(step), go_on(file, path))) == -signal.SIGKILL
    assert in_child(lambda: (die_at_step(step, after=True), go_on(file, path))) == -signal.SIGKILL
    later = min(step + 2, 12)
    assert in_child(lambda: (die_at_step(later), go_on(file, path))) == -signal.SIGKILL
    assert in_child(lambda: go_on(file, path)) == 0
    assert_same(path, expected)


WRITES = range(1, 161)  # more than a run has: the last test here counts them
STRIDE = 16


@pytest.fixture(scope="module")
def short(home):
    """The same run with fewer checkpoints, so that each of its writes can be tried: 0, 6 (the best), 12."""
    fewer = {"training": {"evaluate_every": 6, "save_every": 6}}
    return tiny_runs.run_file(home / "short", fewer)


@pytest.fixture(scope="module")
def expected_short(short, home):
    path = home / "short, never killed"
    session.run(short, path, options=tiny_runs.quiet())
    return {name: (path / name).read_bytes() for name in SAME}


@pytest.mark.parametrize("first", few_or_slow(WRITES[:STRIDE], {7}))
def test_killed_at_every_write(short, home, expected_short, first):
    """Case k dies at the writes k, k + 16, k + 32, ... of runs begun anew, each of which is then resumed;
    every fourth resume dies too, at its own k-th write."""
    for number in WRITES[first - 1 :: STRIDE]:
        path = home / f"write-{number}"
        code = in_child(lambda n=number, p=path: (die_at_write(n), go_on(short, p)))
        if code == 0:
            break  # the run has fewer writes
        assert code == -signal.SIGKILL
        if number % 4 == 0:
            in_child(lambda p=path: (die_at_write(first), go_on(short, p)))
        assert in_child(lambda p=path: go_on(short, p)) == 0
        assert_same(path, expected_short)


def test_the_cases_above_reach_the_last_write(short, home):
    seen = []

    def work():
        count_writes(seen.append)
        go_on(short, home / "counted")
        (home / "count").write_text(str(len(seen)))

    assert in_child(work) == 0
    assert 80 < int((home / "count").read_text()) < len(WRITES)
