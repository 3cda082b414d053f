"""What the repository itself promises: pins, make targets, and nothing that belongs to one machine."""

import importlib.metadata
import itertools
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import graftlab

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M
    )
}


def requirements():
    """Return what pyproject.toml asks for, with all extras but those that name graftlab itself."""
    extras = itertools.chain.from_iterable(PROJECT["optional-dependencies"].values())
    found = map(Requirement, [*PROJECT["dependencies"], *extras])
    return [r for r in found if canonicalize_name(r.name) != "graftlab"]


def needed_by(requirement, seen):
    """Add the names of a requirement and of all that it needs here, as far as it is installed."""
    name = canonicalize_name(requirement.name)
    if (name, frozenset(requirement.extras)) in seen:
        return
    seen.add((name, frozenset(requirement.extras)))
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return  # an extra that is not installed here; its own name is looked up all the same
    extras = requirement.extras or {""}
    for further in map(Requirement, lines):
        marker = further.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            needed_by(further, seen)


def tracked_files():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_constraints_pin_all_that_is_installed_with_graftlab():
    seen = set()
    for requirement in requirements():
        needed_by(requirement, seen)
    assert {name for name, _ in seen} - PINS.keys() == set()


def test_every_pin_is_a_version_that_pyproject_allows():
    for requirement in requirements():
        pin = PINS[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement} does not allow {pin}"


def test_the_torch_pin_fits_both_the_cpu_and_the_cuda_build():
    assert "+" not in PINS["torch"]


def test_the_version_is_said_once():
    assert PROJECT["version"] == graftlab.__version__


def test_the_newest_release_in_the_changelog_is_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.M)
    assert released[0] == PROJECT["version"]
    assert len(set(released)) == len(released)


def test_no_tracked_file_names_a_folder_of_one_machine():
    home = re.escape(str(Path.home()))
    machine_path = re.compile(rf"(?<![\w.:/\]}}$])(?:/(?:work|opt|root|tmp)|{home})/\w+")
    found = {
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        for match in machine_path.finditer(path.read_bytes().decode("utf-8", "replace"))
    }
    assert not found


def test_no_weights_pickles_or_data_are_tracked():
    suffixes = {".safetensors", ".bin", ".pt", ".pth", ".pkl", ".npy", ".npz", ".gz", ".parquet"}
    files = tracked_files()
    assert not [path for path in files if path.suffix in suffixes]
    assert not [path for path in files if path.stat().st_size > 2**20]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/benchmarks.md"])
def test_every_make_target_that_is_written_about_exists(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    named = re.findall(r"`make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert set(named) <= set(targets)


def test_the_check_of_a_fresh_clone_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_changelog_has_a_place_for_what_comes_next():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## .*$", text, re.M)[0] == "## [Unreleased]"


def test_a_version_of_the_changelog_has_each_kind_of_change_once():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for version in re.split(r"^## ", text, flags=re.M)[1:]:
        kinds = re.findall(r"^### (\w+)$", version, re.M)
        assert len(set(kinds)) == len(kinds), version.splitlines()[0]
