"""Training loss and validation metric over the steps: single seeds thin, their mean thick.

A gap is a value that was not finite or not defined.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts.plot import COMPARISON, Compared
from graftlab.rundir.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Shapes: K logged steps of a run.

DRAWS_FROM = COMPARISON
TITLE = "Learning curves"
LOSS = "loss"
MOST_POINTS = 300  # of a line: more than pixels show, and a page stays small
MOST_LINES = (
    100  # thin lines of single seeds; beyond that they are a smear, and only means are drawn
)
INCHES = (10.0, 3.8)
COLOURS = 10  # of matplotlib's `tab10`; then the same again, dashed
DASHES = ("-", "--", ":", "-.")


class Line(NamedTuple):
    """One run's figure over its steps."""

    steps: NDArray[np.int64]  # (K,)
    values: NDArray[np.float64]  # (K,)
    """NaN where it was not finite or not defined: a gap, not a number."""


class Curves(NamedTuple):
    """What is drawn: of each method, one line a seed."""

    metric: str
    validation: dict[str, list[Line]]
    loss: dict[str, list[Line]]


def data(compared: Compared) -> Curves:
    """Return the curves that the runs of each row have logged."""
    lines = {
        name: [Run(path).read_metrics() for path in paths] for name, paths in compared.runs.items()
    }
    key = f"validation/{compared.metric}"
    return Curves(
        compared.metric,
        {name: list(_lines(found, key)) for name, found in lines.items()},
        {name: list(_lines(found, LOSS)) for name, found in lines.items()},
    )


def _lines(runs: Sequence[Sequence[Mapping[str, object]]], key: str) -> Iterator[Line]:
    for logged in runs:
        found = [(row["step"], row[key]) for row in logged if key in row]
        if found:
            steps, values = zip(*found, strict=True)
            yield Line(np.array(steps, np.int64), np.array(values, np.float64))


def mean(lines: Sequence[Line]) -> Line:
    """Return the mean at the steps that every line has; NaN where any of them is."""
    common = set.intersection(*({*line.steps.tolist()} for line in lines)) if lines else set()
    steps_K = np.array(sorted(common), np.int64)
    rows = [line.values[np.isin(line.steps, steps_K)] for line in lines]
    return Line(steps_K, np.mean(rows, axis=0) if rows else np.empty(0))


def draw(curves: Curves) -> "Figure":
    """Return a figure: training loss beside the validation metric, seeds thin and means thick."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, curves.loss, "training loss")
    _panel(right, curves.validation, f"validation {curves.metric}")
    handles, labels = right.get_legend_handles_labels()
    if not handles:
        handles, labels = left.get_legend_handles_labels()
    if handles:
        legend = figure.legend(handles, labels, loc="outside right upper", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name with two dollar signs is no formula
    return figure


def _panel(axes: "Axes", methods: Mapping[str, Sequence[Line]], name: str) -> None:
    from matplotlib import colormaps

    seeds = sum(map(len, methods.values())) <= MOST_LINES
    for number, (method, lines) in enumerate(methods.items()):
        if not lines:
            continue
        colour = colormaps["tab10"](number % COLOURS)
        dash = DASHES[number // COLOURS % len(DASHES)]
        marker = "o" if len(lines[0].steps) == 1 else ""
        for line in map(_thinned, lines if seeds and len(lines) > 1 else []):
            axes.plot(*line, color=colour, linestyle=dash, linewidth=0.7, alpha=0.4, marker=marker)
        axes.plot(
            *_thinned(mean(lines)), color=colour, linestyle=dash, linewidth=2, label=method,
            marker=marker,
        )  # fmt: skip
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(name, parse_math=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if not any(methods.values()):
        axes.text(0.5, 0.5, "nothing was logged", ha="center", transform=axes.transAxes)


def _thinned(line: Line) -> Line:
    """Return every so many-th point of a long line, and the last."""
    every = -(-len(line.steps) // MOST_POINTS)
    if every <= 1:
        return line
    kept = np.unique([*range(0, len(line.steps), every), len(line.steps) - 1])
    return Line(line.steps[kept], line.values[kept])
