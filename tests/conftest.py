"""What `make check` leaves out, and a garbage collector that does not go through the libraries again."""

import gc
from fnmatch import fnmatchcase

import pytest

# What collecting tests imports stays to the end: half a million objects, a quarter of a second a pass.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow what `quick` leaves out of a test's cases: they keep the promise that a few of them show."""
    idle = set()
    matched = set()
    for item in items:
        mark, case = item.get_closest_marker("quick"), getattr(item, "callspec", None)
        if mark is None or case is None:
            continue
        found = {(item.path, pattern) for pattern in mark.args if fnmatchcase(case.id, pattern)}
        idle |= {(item.path, pattern) for pattern in mark.args}
        matched |= found
        if not found:
            item.add_marker(pytest.mark.slow)
    if config.args == config.getini("testpaths") and idle - matched:
        raise pytest.UsageError(f"quick: no case is named so: {sorted(map(str, idle - matched))}")
