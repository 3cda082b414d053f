"""Runs that drew with their seed what they were scored on: seeds are then no independent samples."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graftlab.contracts import read_notes
from graftlab.rundir.run import Run
from graftlab.study.records import Row


def overlaps(rows: Iterable[Row], folder: Path) -> dict[str, float]:
    """Return, by its folder in this one, how many rows a run was scored on for each there was to train on.

    Runs whose split was not carved from train are left out: all seeds have it.
    """
    found = {}
    for row in rows:
        for name in (row.runs[seed] for seed in row.score.values):
            data = Run(folder / name).read_environment()["data"]
            parts = [own for own in _tasks(data) if _is_carved(own, row.ranked_by)]
            if parts:
                scored = sum(own["sizes"][row.ranked_by] for own in parts)
                found[name] = scored / sum(own["original_sizes"]["train"] for own in parts)
    return found


def _tasks(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the records of a mixture's tasks; of another task its own."""
    return list(data["tasks"].values()) if data.get("tasks") else [data]


def _is_carved(data: Mapping[str, Any], split: str) -> bool:
    return f"{split}_carved" in {note.kind for note in read_notes(data.get("notes", ()))}
