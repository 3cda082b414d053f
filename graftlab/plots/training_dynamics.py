"""Numbers of the weights over the checkpoints: mean and standard deviation over the weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "spectra"
TITLE = "Spectra over training"
PANELS = {
    "effective_rank": "effective rank (above 1e-5)",
    "rank_95_energy": "rank of 95 % of the sum",
    "mean_principal_angle": "mean principal angle to before (radians)",
    "sv_correlation": "correlation of singular values with before",
    "relative_change": "size of the change / size before",
    "change_stable_rank": "stable rank of the change",
}


class Dynamics(NamedTuple):
    """What is drawn: by panel, then by model."""

    panels: dict[str, dict[str, _models.Band]]


def data(rows: Sequence[_models.Line]) -> Dynamics:
    """Return each number over the checkpoints of each model."""
    return Dynamics({name: _models.bands(rows, name) for name in PANELS})


def draw(dynamics: Dynamics) -> "Figure":
    """Return one panel a number, over the same steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    panels = figure.subplots(2, 3)
    _models.over_steps(list(panels.flat), dynamics.panels, PANELS)
    return figure
