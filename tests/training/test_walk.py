"""The walk through docs/architecture.md is the way that a run takes."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_runs

from graftlab import inference
from graftlab.release import export
from graftlab.runs import session

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
WALK = PAGE.read_text(encoding="utf-8").partition("## A walk through it\n")[2].partition("\n## ")[0]
ROOMS = {path.stem for path in Path(inference.__file__).parents[1].iterdir()}
NOT_PASSED = {
    "backbones.encoder.load",  # the backbone is a tiny one
    "release.merge.merge",  # which LoRA can be as well
    "runs.kept_step.load",  # the run is opened at its end
    "training.resume.restore",  # nothing is killed
    "training.resume.restore_best",
    "training.workers.Ahead",  # batches are made on the spot
}


def names() -> Iterator[str]:
    for name in re.findall(r"`((?:\w+\.)+\w+)`", WALK):
        if name.partition(".")[0] in ROOMS and not name.endswith((".yaml", ".jsonl")):
            yield name


def found(name: str) -> object:
    """Return what a dotted name below graftlab leads to: a module, or what stands in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(["graftlab", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            annotations = getattr(thing, "__annotations__", {})
            thing = getattr(thing, part, None) or annotations.get(part)
        return thing
    return None


@pytest.mark.parametrize("name", sorted({*names()}))
def test_what_the_walk_names_is_there(name):
    assert found(name) is not None


@pytest.mark.slow
def test_a_run_passes_through_what_the_walk_names(tmp_path):
    entered = set()

    def note(frame, event, argument):
        if event == "call":
            entered.add(frame.f_code)

    sys.setprofile(note)
    try:
        file = tiny_runs.run_file(tmp_path, {"hooks": ["norms"]})
        run = session.run(file, options=tiny_runs.quiet())
        inference.load(run.path)
        export.lora(run.path, tmp_path / "lora")
    finally:
        sys.setprofile(None)
    missed = []
    for name in sorted({*names()} - NOT_PASSED):
        thing = found(name)
        if isinstance(thing, type):
            thing = vars(thing).get("__init__")  # a Section is made by pydantic
        code = getattr(getattr(thing, "__func__", thing), "__code__", None)
        if code is not None and code not in entered:
            missed.append(name)
    assert not missed
