"""Angles between the top singular vectors now and before, the largest first; dashed for a random change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "spectra"
TITLE = "Principal angles to before"
VALUES = 10


class Angles(NamedTuple):
    """What is drawn, in degrees: by model, at its last checkpoint; a band's step is the angle's place."""

    models: dict[str, _models.Band]
    nulls: dict[str, _models.Band]


def data(rows: Sequence[_models.Line]) -> Angles:
    """Return mean and deviation of each angle over the weights of each model, and of its null."""
    last = _models.last(rows)
    return Angles(
        *({m: _band(r, name) for m, r in last.items()} for name in ("angle", "null_angle"))
    )


def _band(rows: Sequence[_models.Line], name: str) -> _models.Band:
    found = [np.degrees(_models.column(rows, f"{name}_{k}")) for k in range(VALUES)]
    kept = [(k + 1.0, v) for k, v in enumerate(found) if len(v)]
    return _models.Band(
        np.array([place for place, _ in kept]),
        np.array([v.mean() for _, v in kept]),
        np.array([v.std() for _, v in kept]),
    )


def draw(angles: Angles) -> "Figure":
    """Return a line a model with its band, and its null dashed in its colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    if not any(len(band.steps) for band in angles.models.values()):
        _models.empty(axes)
        return figure
    _models.lines(axes, angles.models)
    chosen = _models.colours(list(angles.models))
    for model, band in angles.nulls.items():
        axes.plot(band.steps, band.mean, linestyle="dashed", color=chosen[model], linewidth=1)
    axes.set_ylim(0, 92)
    axes.set_xlabel("place, the largest first")
    axes.set_ylabel("degrees")
    _models.legend(figure, axes)
    return figure
