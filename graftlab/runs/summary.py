"""A run at a glance, finished or not: scores beside the largest class, curves, what it is and where."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graftlab.config import read_yaml
from graftlab.contracts import Problem
from graftlab.errors import ConfigError, nearest
from graftlab.rundir.records import ClassReport, Result
from graftlab.rundir.run import Run
from graftlab.runs import class_report, integrity, origin, status
from graftlab.runs.place import has_trained
from graftlab.runs.status import Row

TAIL = 5  # lines of metrics.jsonl
APART = ("step", "learning_rate", "gradient_norm")
"""Figures of metrics.jsonl that say little of how well a run does."""


class Curve(NamedTuple):
    """One figure over the steps."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class LargestClass(NamedTuple):
    """The largest class of train, and how often always saying it is right."""

    name: str
    right: Mapping[str, float]
    """By split."""


@dataclass(frozen=True)
class Summary:
    """What a run directory holds."""

    run: Run
    row: Row
    """How it stands."""
    config: dict[str, object]
    """The resolved run file."""
    metrics: list[dict[str, object]]
    """The last lines of metrics.jsonl."""
    result: Result | None
    """None of a run that is not finished."""
    trained: bool
    """Whether it has come to a checkpoint."""
    classes: Mapping[str, Sequence[ClassReport]]
    """By split; of a run of an older version made of its predictions."""
    curves: tuple[Curve, ...]
    """The metric that chooses the step on validation, then the loss."""
    largest: LargestClass | None
    """None where the task has no classes, or an older version made the run."""
    recipe: str | None
    """The shipped recipe that the run file came from."""
    given: Mapping[str, object] | None
    """What the run file and the command line say beside the recipe; None where it is not known."""

    def as_json(self) -> dict[str, object]:
        return {
            "run": str(self.run.path),
            "finished": self.result is not None,
            "status": self.row.status,
            "cause": self.row.cause,
            "recipe": self.recipe,
            "given": self.given,
            "classes": self.classes,
            "largest_class": self.largest and self.largest._asdict(),
            "curves": [curve._asdict() for curve in self.curves],
            "config": self.config,
            "metrics": self.metrics,
            "result": self.result,
        }


def started(path: Path) -> Run:
    """Return the run at `path`, finished or not.

    Raises:
        ConfigError: this is no run.
        CheckpointError: a file of it is damaged.
    """
    run = Run(path)
    if not run.started:
        known = (folder.parent.name for folder in path.parent.glob("*/config.yaml"))
        close = nearest(path.name, known)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"{path} is no run directory: it has no config.yaml.{hint} "
            f"All in a folder: `graftlab list runs --runs DIR`.",
            kind="no_run",
        )
    return run


def summary(path: Path) -> Summary:
    """Return a run at a glance.

    Raises:
        ConfigError: this is no run.
        CheckpointError: a file of it is damaged.
    """
    run = started(path)
    run.check(run.config.name)
    config = read_yaml(run.config)
    lines = run.read_metrics()
    done = run.read_result() if run.finished else None
    environment = run.read_environment() if run.environment.is_file() else {}
    integrity.tell_changes(run, config)
    recipe, given = origin.read(environment, config)
    return Summary(
        run=run,
        row=status.of_run(run),
        config=config,
        metrics=lines[-TAIL:],
        result=done,
        trained=has_trained(run),
        classes=_classes(run, done, environment) if done else {},
        curves=tuple(_curves(lines, done)),
        largest=_largest(environment),
        recipe=recipe,
        given=given,
    )


def _classes(
    run: Run, done: Result, environment: Mapping[str, Any]
) -> Mapping[str, Sequence[ClassReport]]:
    if "classes" in done:
        return done["classes"]
    splits = [split for split in done.get("metrics", {}) if run.predictions(split).is_file()]
    if not splits or not environment.get("data", {}).get("labels"):
        return {}
    return class_report.of_run(run, Problem.from_json(environment["data"]), splits)


def _curves(lines: Sequence[Mapping[str, object]], done: Result | None) -> "list[Curve]":
    """Return the curves of the metric by which the step was chosen, and of the loss, where there are any."""
    known = dict.fromkeys(key for line in lines for key in line if key not in APART)
    scored = [key for key in known if key.startswith("validation/") and not key.endswith("_size")]
    chosen = f"validation/{done.get('selected_by')}" if done else None
    metric = (
        chosen if chosen in scored else next((k for k in scored if k != "validation/loss"), None)
    )
    found = [_curve(lines, name) for name in (metric, "loss") if name in known]
    return [curve for curve in found if len(curve.values) > 1]


def _curve(lines: Sequence[Mapping[str, Any]], name: str | None) -> Curve:
    points = [
        (int(line.get("step", 0)), float(value))
        for line in lines
        if isinstance(value := line.get(name or ""), int | float) and math.isfinite(value)
    ]
    return Curve(name or "", tuple(step for step, _ in points), tuple(value for _, value in points))


def _largest(environment: Mapping[str, Any]) -> LargestClass | None:
    """Return what the data doctor has said of the classes."""
    notes = environment.get("data", {}).get("notes", ())
    counts = [
        n
        for n in notes
        if isinstance(n, dict) and n.get("kind") == "class_counts" and "task" not in n
    ]
    return LargestClass(counts[0]["largest"], counts[0]["right"]) if counts else None
