"""Imports point down. This list is the architecture; changing it is a decision, not a detail."""

import ast
from pathlib import Path

import pytest

import graftlab

LADDER = [
    {"errors"},
    {"registry", "config", "files", "seeds", "hooks", "contracts", "surgery", "quantized", "provenance",
     "answers", "sandbox"},
    {"runs", "data", "hub", "pretrained", "adapters", "layers", "selection", "programs"},
    {"tasks", "backbones", "methods", "metrics", "training"},
    {"evaluation", "identity", "curves"},
    {"runfile", "auto"},
    {"selecting", "adapting", "outcome", "execution", "experiment"},
    {"inference", "preparing", "planning"},  # a finished run put to use, as `export` needs it; and data made
    {"study", "export", "merging", "sharing", "chatting", "harness", "page", "demo", "testing"},
    {"commands", "cli"},
]  # fmt: skip
NEIGHBOURS = {  # the few that may know a part on their own rung, and why
    ("contracts", "hooks"),  # a record holds hooks
    ("pretrained", "hub"),  # a model may come from the hub
    ("data", "hub"),  # so may data
    ("layers", "hub"),  # and one layer of a model
    ("programs", "sandbox"),  # generated programs run nowhere else
    ("selection", "layers"),  # which reads each layer once
    ("execution", "adapting"),  # how the adapter is put on: one step of the wiring
    ("execution", "outcome"),  # what it comes to: another one
    ("experiment", "execution"),  # where a run goes, and how it is carried out
    ("execution", "selecting"),  # a layer is chosen before a method is attached
    ("demo", "study"),  # the demo is a study, after one run that makes its backbone
    ("cli", "commands"),
}
MAY_FIND = {"auto", "runfile", "selecting", "execution", "experiment", "study", "export", "merging",
            "inference", "page", "demo", "testing", "commands", "cli"}  # fmt: skip
ROOT = Path(graftlab.__file__).parent
RANK = {part: rank for rank, parts in enumerate(LADDER) for part in parts}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem[0] != "_")


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(path):
    """Yield the first part of every `graftlab.<part>...` that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("graftlab.") and name != "graftlab.__version__":
                yield name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    part = part_of(path)
    assert part in RANK, f"{part} stands on no rung: give it one here and in docs/architecture.md"
    others = {other for other in imported_parts(path) if other != part}
    unknown = {other for other in others if other not in RANK}
    assert not unknown, f"{path.name} imports {unknown}, which stand on no rung"
    above = {other for other in others if RANK[other] > RANK[part]}
    beside = {other for other in others if RANK[other] == RANK[part]}
    beside -= {other for mine, other in NEIGHBOURS if mine == part}
    assert not above, f"{path.name} imports from a rung above it: {above}"
    assert not beside, f"{path.name} imports its neighbour: {beside}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_wiring_finds_parts_by_name(path):
    calls = {
        node.func.value.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "find"
        and isinstance(node.func.value, ast.Name)
    }
    assert "registry" not in calls or part_of(path) in MAY_FIND, (
        f"{path.name} calls registry.find; what it needs must be handed to it"
    )
