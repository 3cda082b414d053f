"""Test scores as bars, the best first; a whisker is the standard deviation over seeds."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts import Compared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Shapes: R rows of the comparison.

DRAWS_FROM = "comparison"
TITLE = "Test scores"


class Bars(NamedTuple):
    """What is drawn."""

    names: tuple[str, ...]
    metric: str
    means: NDArray[np.float64]  # (R,), NaN where a row has no score
    deviations: NDArray[np.float64]  # (R,), NaN where it has fewer than two seeds


def data(compared: Compared) -> Bars:
    """Return the mean of each row and its standard deviation."""
    summaries: list[dict[str, Any]] = [row["test"] for row in compared.rows]
    means, deviations = (
        np.array([summary[key] for summary in summaries], dtype=float)
        for key in ("mean", "deviation")
    )
    return Bars(tuple(compared.runs), compared.metric, means, deviations)


def draw(bars: Bars) -> "Figure":
    """Return a bar for each row."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(bars.names)), bars.means, xerr=bars.deviations)
    axes.set_yticks(range(len(bars.names)), bars.names, parse_math=False)
    axes.set_xlabel(bars.metric, parse_math=False)
    axes.invert_yaxis()
    return figure
