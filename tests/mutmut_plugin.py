"""What `make mutants` has pytest do for mutmut: which tests run, in which order, and what each reaches."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "mutants"
STATS = COPY / "mutmut-stats.json"
ELSEWHERE = COPY / "reached.txt"
OF_TRAINING = ("tests/training/", "tests/test_progress.py", "tests/test_trackers.py")
"""Tests that are for training/; the others of pyproject.toml are for metrics and splits."""
WHOLE_RUNS = (
    "test_every_field.py", "test_hooks.py", "test_kept_step.py", "test_numbers.py",
    "test_older_runs.py", "test_place.py", "test_resume.py",
)  # fmt: skip
"""Quick, but many times what small loops take: a mutant that nothing sees would cost a minute."""
SHARDS = "test_shards_together.py"
"""Small processes that share out their weights; for training/parallel DeepSpeed's, too, though slow."""
PART = "MUTANTS_PART"
MODE = "MUTANT_UNDER_TEST"
"""Where mutmut says what goes on: `stats`, `list_all_tests`, nothing, or the name of a mutant."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests and those of other parts; let files whose tests take the least go first, so that
    what a module's tests share is made once."""
    took = json.loads(STATS.read_text())["duration_by_test"] if STATS.exists() else {}
    part = os.environ[PART]

    def wanted(item: pytest.Item) -> bool:
        if item.path.name == SHARDS and part.endswith("/parallel"):
            return True
        if item.path.name in WHOLE_RUNS or item.get_closest_marker("slow"):
            return False
        return item.nodeid.startswith(OF_TRAINING) == part.startswith("graftlab/training")

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = filter(wanted, items)
    of_file: dict[Path, float] = {}
    for item in items:
        of_file[item.path] = of_file.get(item.path, 0.0) + took.get(item.nodeid, 0.0)
    items.sort(key=lambda item: (of_file[item.path], item.path))


SHARED: dict[str, set[str]] = {}
"""What each fixture of more than one test has reached, by its name."""


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    """Note what a fixture reaches: mutmut takes it for the first test's alone."""
    if os.environ.get(MODE) != "stats" or fixturedef.scope == "function":
        return (yield)
    before = set(reached())
    reached().clear()
    try:
        return (yield)
    finally:
        SHARED.setdefault(fixturedef.argname, set()).update(reached(), elsewhere())
        reached().update(before)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and os.environ.get(MODE) == "stats":
        shared = (SHARED.get(name, ()) for name in item.fixturenames)
        reached().update(elsewhere(), *shared)


def pytest_collection_finish() -> None:
    """Have processes that a test forks off write down what they reach."""
    if os.environ.get(MODE) == "stats":
        os.register_at_fork(after_in_child=write_down)


def write_down() -> None:
    """From here on, write down what this process reaches, as soon as it does, if that is asked for."""
    from mutmut.mutation import trampoline

    if os.environ.get(MODE) != "stats":
        return
    written: set[str] = set()

    def record(name: str, caller: str | None = None) -> None:
        if name not in written:
            written.add(name)
            with ELSEWHERE.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")

    trampoline.record_trampoline_hit = record


def elsewhere() -> set[str]:
    """Return what processes of a test have reached since the last time, and forget it."""
    if not ELSEWHERE.exists():
        return set()
    found = set(ELSEWHERE.read_text(encoding="utf-8").split())
    ELSEWHERE.unlink()
    return found


def reached() -> set[str]:
    """Return the functions that mutmut has seen in this process since the last test."""
    from mutmut.state import state

    return state()._stats
