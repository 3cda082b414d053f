"""Runs that drew with their seed what they were scored on: seeds are then no independent samples."""

from collections.abc import Iterable
from pathlib import Path

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
            notes = {note.kind for note in read_notes(data.get("notes", ()))}
            if f"{row.ranked_by}_carved" in notes:
                found[name] = data["sizes"][row.ranked_by] / data["original_sizes"]["train"]
    return found
