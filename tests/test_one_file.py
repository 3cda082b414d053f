"""A part is one file: each of docs/add-a-part.md, laid into a copy of the package, is green so."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graftlab import registry

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add-a-part.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"`(graftlab/[\w/]+\.py)`:\n\n```python\n(.*?)^```$", PAGE, re.M | re.S))
OTHER_PAGES = {"graftlab/methods/ia3.py": "add-a-method", "graftlab/hooks/countdown.py": "hooks"}
for path, page in OTHER_PAGES.items():
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    PARTS[path] = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)[0]
(FROZEN,) = re.findall(r"^`tests/commands.txt`:\n\n```text\n(.*?)^```$", PAGE, re.M | re.S)
COPIED = ("graftlab", "tests", "docs", "bench", "examples")
WHOLE = ("house", "docs", "imports", "cli", "runfile")
"""Tests that know all parts, or the whole package: run as they are."""
SUITES = (
    "test_methods",
    "test_contracts",
    "test_plots",
    "test_analyses",
    "test_spectra",
    "training/test_hooks",
)
"""Tests over all names: run for the new ones."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a copy of the clone with one file more for each kind of part, and a command's frozen line."""
    copy = tmp_path_factory.mktemp("one-file") / "clone"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.name in COPIED:
            shutil.copytree(
                path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__", "results")
            )
        elif path.is_file():
            shutil.copy(path, copy)
    shutil.copytree(ROOT / "bench" / "results", copy / "bench" / "results")
    for path, text in PARTS.items():
        assert not (copy / path).exists(), path
        (copy / path).write_text(text, encoding="utf-8")
    frozen = copy / "tests" / "commands.txt"
    lines = [*frozen.read_text(encoding="utf-8").splitlines(), FROZEN.strip()]
    frozen.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
    return copy


def passed(clone, *arguments, of="not slow"):
    """Return the names of the tests that have passed in the copy; none may fail."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-m", of, *arguments],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return re.findall(r"^(\S+) PASSED", done.stdout, re.M)


def test_every_kind_of_part_is_on_the_page():
    shown = {str(Path(path).parent) for path in PARTS}
    kinds = (kind for kind in registry.KINDS if registry.names(kind))
    assert {f"graftlab/{registry.FOLDERS.get(kind, kind)}" for kind in kinds} == shown


@pytest.mark.slow
def test_what_knows_all_parts_is_green_with_one_file_more(clone):
    assert len(passed(clone, *(f"tests/test_{name}.py" for name in WHOLE))) > 300


@pytest.mark.slow
def test_a_new_part_is_held_to_the_promises_of_its_kind(clone):
    names = [Path(path).stem for path in PARTS if "commands" not in path]
    suites = (f"tests/{name}.py" for name in SUITES)
    found = passed(clone, *suites, "-k", " or ".join(names), of="slow or not slow")
    assert min(sum(name in test for test in found) for name in names) >= 3, found
