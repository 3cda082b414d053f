"""Figures of all gradients together over the checkpoints, dL/dW of the adapted weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts.analysis import GLOBAL
from graftlab.plots import _gradients, _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "gradients"
TITLE = "Gradients as a whole"


class Panels(NamedTuple):
    """What is drawn: by panel, then by model."""

    panels: dict[str, dict[str, _models.Band]]


def data(rows: Sequence[_models.GradientLine]) -> Panels:
    """Return each figure over the checkpoints of each model."""
    whole = [row for row in _gradients.drawn(rows) if row.layer_type == GLOBAL]
    return Panels({name: _models.bands(whole, name) for name in _gradients.SHOWN})


def draw(found: Panels) -> "Figure":
    """Return one panel a figure, over the same steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes, (name, bands) in zip(panels.flat, found.panels.items(), strict=True):
        if any(len(band.steps) for band in bands.values()):
            _models.lines(axes, bands)
            axes.set_xlabel("training steps")
        else:
            _models.empty(axes)
        axes.set_title(_gradients.SHOWN[name], fontsize=10)
    _models.legend(figure, panels[0, 0])
    return figure
