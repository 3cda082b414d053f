"""A hook from outside, as docs/hooks.md shows it: one module, an entry point, and the contract tests."""

import re
import tomllib
from pathlib import Path

import pytest
from outside_packages import run

PAGE = (Path(__file__).parents[1] / "docs" / "hooks.md").read_text(encoding="utf-8")


def block(language):
    """Return the page's first block of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder with the page's module, and its entry point as pip writes it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "graftlab_countdown.py").write_text(block("python"), encoding="utf-8")
    record = folder / "graftlab_countdown-1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: graftlab_countdown\nVersion: 1\n"
    )
    points = tomllib.loads(block("toml"))["project"]["entry-points"]["graftlab.hooks"]
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    (record / "entry_points.txt").write_text(f"[graftlab.hooks]\n{lines}")
    return folder


@pytest.mark.slow  # a process of its own
def test_it_is_listed(installed):
    assert "countdown" in run(installed, "graftlab", "list", "hooks")


@pytest.mark.slow  # a process of its own
def test_the_pages_run_file_is_right(installed):
    (installed / "measured.yaml").write_text(block("yaml"), encoding="utf-8")
    assert run(installed, "graftlab", "check", "measured.yaml", "--json")


@pytest.mark.slow
def test_it_keeps_the_promises(installed):
    said = run(
        installed, "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "graftlab.testing.hooks",
        "-k", "countdown",
    )  # fmt: skip
    assert "3 passed" in said
