"""The first singular values of weights and of their changes at the last checkpoint, mean over the weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.contracts.analysis import NEW
from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "spectra"
TITLE = "Decay of the singular values"
VALUES = 10
PANELS = {"sv": "of the weight", "change_sv": "of its change"}


class Decay(NamedTuple):
    """What is drawn: by panel, then by model; where a band's step is, the value's place stands."""

    panels: dict[str, dict[str, _models.Band]]


def data(rows: Sequence[_models.Line]) -> Decay:
    """Return mean and deviation over the weights of each of the first values above rounding."""
    return Decay(
        {
            prefix: {model: _decay(own, prefix) for model, own in _models.last(rows).items()}
            for prefix in PANELS
        }
    )


def _decay(rows: Sequence[_models.Line], prefix: str) -> _models.Band:
    # a vector has one value, and a new head a few, which no other weight would go on from
    rows = [r for r in rows if getattr(r, "columns", None) != 1 and getattr(r, "note", None) != NEW]
    found = [_models.column(rows, f"{prefix}_{k}") for k in range(VALUES)]
    kept = [(k, v[v > 0]) for k, v in enumerate(found) if (v > 0).any()]
    return _models.Band(
        np.array([k + 1.0 for k, _ in kept]),
        np.array([v.mean() for _, v in kept]),
        np.array([v.std() for _, v in kept]),
    )


def draw(decay: Decay) -> "Figure":
    """Return a panel for weights and one for changes, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (prefix, found) in zip(panels, decay.panels.items(), strict=True):
        if any(len(band.steps) for band in found.values()):
            _models.lines(axes, found)
            axes.set_yscale("log")
            axes.set_xlabel("place, the largest first")
        else:
            _models.empty(axes)
        axes.set_title(f"singular values {PANELS[prefix]}", fontsize=10)
    _models.legend(figure, panels[1] if panels[1].lines else panels[0])
    return figure
