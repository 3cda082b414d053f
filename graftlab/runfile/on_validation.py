"""What is chosen by has to be scored on validation: texts are written for test alone unless asked."""

from typing import Any

from graftlab.contracts import TaskKind
from graftlab.data.section import DataSection
from graftlab.runfile import measures
from graftlab.runfile.checks import WRITTEN
from graftlab.runfile.records import Part

LOSS, MEAN = "loss", "mean"
"""What needs no metric, and what a mixture makes of the first metric of each of its tasks."""


def unscored(task: Part[TaskKind], metric: str | None = None) -> str:
    """Return why runs of a task would have no value of a metric on validation, and what mends it; empty where
    they have one. Unless named, the metric is the first; a mixture's mean is that of each task's first."""
    name, _, own = ("" if metric in (None, MEAN) else str(metric)).rpartition("/")
    parts = {name: task.parts[name]} if name in task.parts else task.parts or {"": task}
    for part in parts.values():
        first = own or next(iter(_metrics(part.config)), LOSS)
        writing = getattr(part.config, "generation", None)
        if first == LOSS or writing is None or "validation" in writing.splits:
            continue
        if measures.measure(first).module.READS in WRITTEN:
            return (
                f"{first} reads what is written, and of validation nothing is written at the end of a run. "
                f"Set task.generation.splits: [validation, test]."
            )
    return ""


def _metrics(config: Any) -> tuple[str, ...]:
    return config.metrics if isinstance(config, DataSection) else ()
