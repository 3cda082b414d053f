"""Every score at every layer, each brought to 0..1 over the layers; the numbers are the scores."""

from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts.plot import SELECTION, Selected
from graftlab.plots._layers import shown, ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats, Integers


# Shapes: S scores, L layers.

DRAWS_FROM = SELECTION
TITLE = "Scores by layer"
WIDEST = 14.0  # inches
MOST_NUMBERS = 16  # layers whose cells have room for a number
DARK = 0.6  # share from which viridis is too light for white letters


class Heat(NamedTuple):
    """What is drawn."""

    layers: "Integers"  # (L,)
    chosen: int
    names: tuple[str, ...]
    scores: "Floats"  # (S, L), NaN where undefined
    shares: "Floats"  # (S, L), 0 at a score's lowest layer and 1 at its highest


def data(selected: Selected) -> Heat:
    """Return the scores, and each as a share of its range over the layers; equal scores are all 0."""
    import numpy as np

    scores_SL = np.array([score_BL[0] for score_BL in selected.scores.values()])
    low_S1 = np.min(np.where(np.isfinite(scores_SL), scores_SL, np.inf), axis=1, keepdims=True)
    high_S1 = np.max(np.where(np.isfinite(scores_SL), scores_SL, -np.inf), axis=1, keepdims=True)
    range_S1 = np.where(high_S1 > low_S1, high_S1 - low_S1, 1.0)
    return Heat(
        selected.layers,
        selected.chosen,
        tuple(selected.scores),
        scores_SL,
        (scores_SL - low_S1) / range_S1,
    )


def draw(heat: Heat) -> "Figure":
    """Return the scores as an image, one row each."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(WIDEST, 3 + 0.6 * len(heat.layers)), 3.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(heat.shares, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    axes.set_yticks(range(len(heat.names)), [shown(name) for name in heat.names], parse_math=False)
    ticks(axes, heat.layers, heat.chosen)
    for (row, column), value in np.ndenumerate(
        heat.scores if len(heat.layers) <= MOST_NUMBERS else np.empty((0, 0))
    ):
        axes.text(
            column, row, "–" if np.isnan(value) else f"{value:.3f}", ha="center", va="center",  # noqa: RUF001
            fontsize=7, color="black" if heat.shares[row, column] > DARK else "white",
        )  # fmt: skip
    figure.colorbar(image, ax=axes, label="lowest to highest")
    return figure
