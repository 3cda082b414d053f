"""The promises of every hook that a run file may bring, over all registered names.

    from graftlab.testing.hooks import *  # in a test file; pytest -k my_hook

Each case is a real run of 12 steps, on a model that is made on the spot.
"""

import json
from pathlib import Path

import pytest

from graftlab import registry
from graftlab.config import Section
from graftlab.contracts import Hook
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.testing import resume, rig

every = pytest.mark.parametrize("name", registry.names("hooks"))


def _section(name: str, folder: Path) -> Section:
    """Return the hook's defaults, or, where these ask for files from elsewhere, what its `example` writes."""
    module = registry.find("hooks", name)
    folder.mkdir(parents=True, exist_ok=True)
    return module.example(folder) if module.example else module.Config()


def _brings(name: str, folder: Path) -> dict[str, object]:
    fields = _section(name, folder / "hook").model_dump(mode="json")
    return {"method": {"name": "lora"}, "hooks": [{**fields, "name": name}]}


def _run(folder: Path, changes: dict[str, object]) -> Run:
    return session.run(resume.run_file(folder, changes), options=resume.OPTIONS)


def _without(name: str, run: Run) -> list[str]:
    """Return the lines of metrics.jsonl without a hook's scalars, and without those that had no others."""
    lines = []
    for line in run.metrics.read_text(encoding="utf-8").splitlines():
        kept = {k: v for k, v in json.loads(line).items() if not k.startswith(f"{name}/")}
        if len(kept) > 1 or f"{name}/" not in line:
            lines.append(files.dump_json(kept, indent=None).rstrip())
    return lines


def _adapter(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.adapter.iterdir())}


@every
def test_a_hook_is_made_of_its_section_and_says_whether_it_observes(
    name: str, tmp_path: Path
) -> None:
    module = registry.find("hooks", name)
    setting = rig.setting(rig.FAMILIES["encoder"])
    assert isinstance(module.make(_section(name, tmp_path), setting), Hook)
    assert isinstance(module.OBSERVES, bool)


@every
def test_a_hook_that_observes_leaves_all_but_its_own_scalars_the_same(
    name: str, tmp_path: Path
) -> None:
    """Of metrics.jsonl, predictions and adapter; one that does not observe changes the last."""
    plain = _run(tmp_path / "plain", {"method": {"name": "lora"}})
    with_hook = _run(tmp_path / "hook", _brings(name, tmp_path))
    if not registry.find("hooks", name).OBSERVES:
        assert _adapter(with_hook) != _adapter(plain)
        return
    assert _without(name, with_hook) == plain.metrics.read_text(encoding="utf-8").splitlines()
    assert _adapter(with_hook) == _adapter(plain)
    for split in ("validation", "test"):
        assert with_hook.predictions(split).read_bytes() == plain.predictions(split).read_bytes()


@every
def test_killed_and_resumed_equals_never_killed(name: str, tmp_path: Path) -> None:
    """At three points: before the first checkpoint with steps in it, between two, before the end."""
    file = resume.run_file(tmp_path, _brings(name, tmp_path))
    whole = session.run(file, tmp_path / "whole", options=resume.OPTIONS)
    path = tmp_path / "killed"
    assert resume.killed_after(2, lambda: session.run(file, path, options=resume.OPTIONS))
    for step in (5, 11):
        assert resume.killed_after(step, lambda: session.resume(path, resume.OPTIONS))
    assert resume.in_child(lambda: session.resume(path, resume.OPTIONS)) == 0
    assert resume.outcome(Run(path)) == resume.outcome(whole)
    assert Run(path).read_result()["exact"]
