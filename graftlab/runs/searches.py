"""A search in a folder of runs: its trials as rows, and the row that it is itself."""

import csv
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graftlab.config.reread import reread
from graftlab.errors import ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs.status import Row, Status

SEARCH, SUMMARY, TRIALS, WORKERS = "search.json", "summary.json", "trials.csv", "workers"
PRUNED = "pruned by its curve"


def is_search(folder: Path) -> bool:
    return (folder / SEARCH).is_file()


def trials(folder: Path, look: Callable[[Run], Row]) -> Iterator[tuple[Path, Row]]:
    """Yield the runs of a search, each with what it has of the space behind its method.

    What was pruned is known once the search has written its table: before, it is a run that was stopped.
    """
    fields = list(_read(folder / SEARCH).get("space", ()))
    states = {row.get("run"): row.get("state") for row in _table(folder / TRIALS)}
    for config in sorted((folder / "runs").glob("*/config.yaml")):
        row = look(Run(config.parent))
        setting = _setting(config, fields)
        cause = row.cause or (PRUNED if states.get(row.run) == "pruned" else None)
        yield (
            config.parent,
            dataclasses.replace(
                row, method=" ".join([row.method or "", *setting]).strip(), cause=cause
            ),
        )


def row_of(folder: Path, look: Callable[[Run], Row]) -> Row:
    """Return a search's row: where it stands, and the best trial's score on validation."""
    runs = {path.name: row for path, row in trials(folder, look)}
    summary = _read(folder / SUMMARY)
    done = [row.status for row in runs.values()].count("finished")
    counts = summary.get("trials") or {"runs": len(runs), "finished": done}
    stands: Status = "finished" if summary else "stopped"
    if any(Run(path).held_by() for path in (folder / WORKERS).glob("*") if path.is_dir()):
        stands, counts = "running", {"runs": len(runs), "finished": done}
    seconds = [row.seconds for row in runs.values() if row.seconds is not None]
    return Row(
        run=folder.name,
        kind="search",
        status=stands,
        date=min((row.date for row in runs.values() if row.date), default=None),
        seconds=sum(seconds) if seconds else None,
        cause=", ".join(f"{count} {what}" for what, count in counts.items()),
        **_best(summary, runs),
    )


def _best(summary: Mapping[str, Any], runs: Mapping[str, Row]) -> dict[str, Any]:
    best: Any = summary.get("best")
    scores = best.get("scores") if isinstance(best, dict) else None
    if not isinstance(scores, dict) or not scores or best.get("run") not in runs:
        return {}
    row = runs[best["run"]]
    metric, score = next(iter(scores.items()))
    return {
        "metric": metric, "score": score, "split": "validation", "method": row.method, "task": row.task,
        "backbone": row.backbone, "trained": row.trained,
    }  # fmt: skip


def _setting(config: Path, fields: list[str]) -> list[str]:
    """Return `key=value` of the fields of a space that a run has."""
    try:
        values: Any = reread(config)
    except ConfigError:
        return []  # said in the run's own row
    found = []
    for key in fields:
        value = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and key != "method.name":
            found.append(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}")
    return found


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where there is none, or it is damaged."""
    try:
        found = files.read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
