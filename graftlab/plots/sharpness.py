"""The largest eigenvalue of the Hessian over the checkpoints, beside the curvature in a random direction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "sharpness"
TITLE = "Sharpness over training"
PANELS = {
    "largest_eigenvalue": "largest eigenvalue",
    "null_largest_eigenvalue": "curvature in a random direction",
}


class Sharpness(NamedTuple):
    """What is drawn: by panel, then by model."""

    panels: dict[str, dict[str, _models.Band]]


def data(rows: Sequence[_models.Line]) -> Sharpness:
    """Return each number over the checkpoints of each model."""
    return Sharpness({name: _models.bands(rows, name) for name in PANELS})


def draw(sharpness: Sharpness) -> "Figure":
    """Return one panel a number, over the same steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    _models.over_steps(list(panels), sharpness.panels, PANELS)
    return figure
