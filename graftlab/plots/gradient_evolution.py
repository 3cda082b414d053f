"""Norm of the gradients over the checkpoints, a panel a kind of layer: mean and deviation over weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts.analysis import GLOBAL
from graftlab.plots import _gradients, _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "gradients"
TITLE = "Gradients over training"


class Panels(NamedTuple):
    """What is drawn: by panel, then by model."""

    panels: dict[str, dict[str, _models.Band]]


def data(rows: Sequence[_models.GradientLine]) -> Panels:
    """Return the norm over the checkpoints of each model, by kind of layer."""
    kept = [row for row in _gradients.drawn(rows) if row.layer_type != GLOBAL]
    kinds = sorted({row.layer_type for row in kept})
    return Panels(
        {k: _models.bands([row for row in kept if row.layer_type == k], "norm") for k in kinds}
    )


def draw(found: Panels) -> "Figure":
    """Return one panel a kind of layer."""
    from matplotlib.figure import Figure

    count = max(1, len(found.panels))
    figure = Figure(figsize=(2 + 3.2 * count, 3.6), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    if found.panels:
        _models.over_steps(list(panels), found.panels, {kind: kind for kind in found.panels})
    else:
        _models.empty(panels[0])
    return figure
