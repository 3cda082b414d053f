"""Scores of a model that reads vectors beside its controls, by task type, with 95 % intervals.

The bar of a control is the 95 % interval of its difference from the model as it was trained: where it
reaches the dotted line, the two are not told apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts.plot import CONTROLS, ControlRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Shapes: C ways to be asked, K task types.

DRAWS_FROM = CONTROLS
TITLE = "Beside controls"
COLUMNS = 3
INCHES = (4.2, 2.6)  # of a panel
SPREAD = 0.5  # of the distance of two ways, over which task types are spread


class Panels(NamedTuple):
    """What is drawn."""

    controls: list[str]  # C
    kinds: list[str]  # K
    values: dict[str, NDArray[np.float64]]  # metric -> (K, C), NaN where undefined
    intervals: dict[
        str, NDArray[np.float64]
    ]  # metric -> (K, C, 2), where the value may lie; NaN without


def data(rows: Sequence[ControlRow]) -> Panels:
    """Return the values by metric, task type and control; what is of all task types only where there is
    one."""
    kinds = list(dict.fromkeys(row["task_type"] for row in rows))
    kinds = kinds[1:] if len(kinds) > 1 else kinds  # the first is `all`
    controls = list(dict.fromkeys(row["control"] for row in rows))
    metrics = dict.fromkeys(row["metric"] for row in rows if row["value"] is not None)
    values = {name: np.full((len(kinds), len(controls)), np.nan) for name in metrics}
    intervals = {name: np.full((len(kinds), len(controls), 2), np.nan) for name in metrics}
    for row in rows:
        value, low, high = row["value"], row["low"], row["high"]
        if row["task_type"] not in kinds or value is None:
            continue
        place = kinds.index(row["task_type"]), controls.index(row["control"])
        values[row["metric"]][place] = value
        if low is not None and high is not None and row["difference"] is not None:
            own = value - row["difference"]
            intervals[row["metric"]][place] = own + low, own + high
    return Panels(controls, kinds, values, intervals)


def draw(panels: Panels) -> "Figure":
    """Return a panel a metric: ways to be asked from left to right, a colour a task type."""
    from matplotlib.figure import Figure

    count = max(len(panels.values), 1)
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(columns * INCHES[0], lines * INCHES[1] + 0.4), layout="constrained")
    axes = [*figure.subplots(lines, columns, squeeze=False).flat]
    for (name, values_KC), own in zip(panels.values.items(), axes, strict=False):
        _panel(own, panels, values_KC, panels.intervals[name])
        own.set_title(name, fontsize=9, parse_math=False)
    for own in axes[len(panels.values) :]:
        own.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _panel(
    axes: "Axes",
    panels: Panels,
    values_KC: NDArray[np.float64],
    intervals_KC2: NDArray[np.float64],
) -> None:
    from matplotlib import colormaps

    places_C, kinds = np.arange(len(panels.controls)), len(panels.kinds)
    for number, (kind, values_C) in enumerate(zip(panels.kinds, values_KC, strict=True)):
        colour = colormaps["tab10"](number % 10)
        moved_C = places_C + SPREAD * ((number + 0.5) / kinds - 0.5)
        axes.plot(moved_C, values_C, "o", color=colour, markersize=4, label=kind)
        axes.vlines(moved_C, *intervals_KC2[number].T, color=colour, linewidth=1.5)
        axes.axhline(values_C[0], color=colour, linestyle=":", linewidth=0.8)
    axes.set_xticks(places_C, panels.controls, rotation=30, ha="right", fontsize=8)
    for text in axes.get_xticklabels():
        text.set_parse_math(False)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
