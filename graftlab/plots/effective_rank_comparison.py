"""How many directions a weight and its change have at the last checkpoint; a box is over the weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

DRAWS_FROM = "spectra"
TITLE = "Effective rank"
PANELS = {
    "effective_rank": "singular values above 1e-5",
    "entropy_rank": "entropy rank of the weight",
    "change_entropy_rank": "entropy rank of its change",
    "change_stable_rank": "stable rank of its change",
}


class Ranks(NamedTuple):
    """What is drawn: by panel, then by model."""

    panels: "dict[str, dict[str, Floats]]"


def data(rows: Sequence[_models.Line]) -> Ranks:
    """Return the ranks of each model's weights."""
    own = _models.last(rows)
    return Ranks(
        {name: {model: _models.column(r, name) for model, r in own.items()} for name in PANELS}
    )


def draw(ranks: Ranks) -> "Figure":
    """Return boxes, a panel a definition."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(2, 2).flat, ranks.panels.items(), strict=True):
        _models.boxes(axes, found)
        axes.set_title(PANELS[name], fontsize=10)
    return figure
