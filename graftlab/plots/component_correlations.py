"""How much of the label each principal component of the states has, layer by layer."""

from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts.plot import SELECTION, Selected
from graftlab.plots._layers import ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats, Integers


# Shapes: L layers, C components.

DRAWS_FROM = SELECTION
TITLE = "Components and label"
WIDEST = 14.0  # inches


class Correlations(NamedTuple):
    """What is drawn."""

    layers: "Integers"  # (L,)
    chosen: int
    values: "Floats"  # (C, L), |correlation|; NaN where a layer has fewer components
    top: float
    """The largest, at which the colours end."""


def data(selected: Selected) -> Correlations:
    """Return the correlations, a row for each component."""
    import numpy as np

    values_CL = selected.correlations.T
    known = values_CL[np.isfinite(values_CL)]
    top = float(known.max()) if known.size else 1.0
    return Correlations(selected.layers, selected.chosen, values_CL, max(top, 1e-9))


def draw(found: Correlations) -> "Figure":
    """Return the correlations as an image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(WIDEST, 3 + 0.45 * len(found.layers)), 4.2), layout="constrained")
    axes = figure.subplots()
    count = len(found.values)
    if not count:
        axes.text(0.5, 0.5, "no component is defined", ha="center", transform=axes.transAxes)
        return figure
    image = axes.imshow(found.values, aspect="auto", cmap="magma", vmin=0, vmax=found.top)
    axes.set_yticks(range(count), [str(number + 1) for number in range(count)])
    axes.set_ylabel("principal component")
    ticks(axes, found.layers, found.chosen)
    figure.colorbar(image, ax=axes, label="|correlation| with the label it tells best")
    return figure
