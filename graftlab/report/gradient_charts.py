"""What a run has recorded of its gradients while it trained, as charts of its page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from graftlab.contracts.analysis import GLOBAL
from graftlab.report.chart import Axis, Series, chart
from graftlab.rundir.lines import read_lines
from graftlab.rundir.run import Run

STEPS = Axis("optimizer steps", whole=True)

Lines = Sequence[Mapping[str, Any]]


def charts(run: Run) -> list[Markup]:
    """Return the norms by kind of layer, and of a mixture the cosines of its tasks, where they are there.

    Raises:
        CheckpointError: a table is damaged.
    """
    gradients, conflicts = (read_lines(run.recorded(kind)) for kind in ("gradients", "conflicts"))
    found = []
    if gradients:
        name = "norm of the gradient"
        found.append(chart(_norms(gradients), STEPS, Axis(name), name))
    if conflicts:
        name = "cosine of two tasks' gradients"
        found.append(chart(_cosines(conflicts), STEPS, Axis(name), name))
    return found


def _norms(lines: Lines) -> list[Series]:
    """Return a line a kind of layer: the root of the sum of squares over its weights."""
    squares: dict[str, dict[int, float]] = {}
    for line in lines:
        if line["norm"] is not None:
            own = squares.setdefault(line["layer_type"], {})
            own[line["step"]] = own.get(line["step"], 0.0) + line["norm"] ** 2
    return [
        Series(kind, [(step, math.sqrt(value)) for step, value in own.items()])
        for kind, own in squares.items()
    ]


def _cosines(lines: Lines) -> list[Series]:
    """Return a line a pair of tasks, of all layers together."""
    points: dict[str, list[tuple[float, float | None]]] = {}
    for line in lines:
        if line["layer"] == GLOBAL:
            pair = f"{line['task']} and {line['other_task']}"
            points.setdefault(pair, []).append((line["step"], line["cosine"]))
    return [Series(pair, own) for pair, own in points.items()]
