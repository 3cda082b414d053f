"""The examples on the first two principal components of some layers, coloured by class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts.plot import MIXED, SELECTION, Selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats, Integers


# Shapes: N examples.

DRAWS_FROM = SELECTION
TITLE = "First two principal components"
MOST_LAYERS = 6  # the source's number
COLUMNS = 3
COLOURS, MARKERS = 10, "os^D"  # of matplotlib's `tab10`; then the same again with other marks


class Scatter(NamedTuple):
    """What is drawn."""

    planes: "dict[int, Floats]"
    """Layer -> (N, 2), in the order of the panels."""
    chosen: int
    labels: "Integers"  # (N,)
    classes: tuple[str, ...]


def data(selected: Selected) -> Scatter:
    """Return the planes of the chosen, first, middle and last layer, and of the next best."""
    import numpy as np

    first_L = selected.scores[MIXED][0]
    layers = selected.layers.tolist()
    by_score = [layers[i] for i in np.argsort(-first_L) if np.isfinite(first_L[i])]
    shown = scattered(selected.chosen, list(selected.planes), by_score)
    planes = {layer: selected.planes[layer] for layer in shown}
    return Scatter(planes, selected.chosen, selected.labels, selected.classes)


def scattered(chosen: int, layers: Sequence[int], by_score: Sequence[int]) -> list[int]:
    """Return the layers to scatter, in order; none where no layer has a plane."""
    ends = [layers[0], layers[len(layers) // 2], layers[-1]] if layers else []
    kept = [layer for layer in dict.fromkeys([chosen, *ends, *by_score]) if layer in layers]
    return sorted(kept[:MOST_LAYERS])


def draw(found: Scatter) -> "Figure":
    """Return one panel a layer."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = min(max(len(found.planes), 1), COLUMNS)
    rows = max(-(-len(found.planes) // columns), 1)
    figure = Figure(figsize=(3.6 * columns + 1.4, 3.3 * rows + 0.4), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for (layer, plane_N2), axes in zip(found.planes.items(), panels, strict=False):
        for c, name in enumerate(found.classes):
            own_N2 = plane_N2[found.labels == c]
            axes.scatter(
                own_N2[:, 0], own_N2[:, 1], s=9, alpha=0.65, linewidths=0, label=name,
                color=colormaps["tab10"](c % COLOURS),
                marker=MARKERS[c // COLOURS % len(MARKERS)],
            )  # fmt: skip
        chosen = " (chosen)" if layer == found.chosen else ""
        axes.set_title(f"layer {layer}{chosen}", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in panels[len(found.planes) :]:
        axes.set_visible(False)
    if found.planes:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside right upper", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name with two dollar signs is no formula
    return figure
