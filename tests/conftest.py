"""What `make check` leaves out, and a garbage collector that does not go through the libraries again."""

import gc
from collections import Counter
from fnmatch import fnmatchcase

import pytest

# What collecting tests imports stays to the end: half a million objects, a quarter of a second a pass.
gc.disable()


LONG = {
    "test_bench", "test_demo", "test_first_hour", "test_first_page", "test_on_ray", "test_search",
    "test_search_kills", "test_search_workers", "test_shared_studies",
}  # fmt: skip
"""Files of minutes, by `--durations`: a file stays in one process, and one begun last is waited for."""


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
    _order(items)
    if config.args == config.getini("testpaths") and (gone := LONG - {i.path.stem for i in items}):
        raise pytest.UsageError(f"conftest.LONG: there are no such files: {sorted(gone)}")


def _order(items: list[pytest.Item]) -> None:
    """Put the files first that take long with few tests, then those with most: no core idles in the end."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.stem not in LONG, -tests[item.path], item.path))
