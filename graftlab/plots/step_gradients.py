"""Norm of the gradients while a run trained, a panel a kind of layer: of all its weights together."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "step_gradients"
TITLE = "Gradients in training"


class Line(Protocol):
    """A line of `step_gradients`."""

    @property
    def model(self) -> str: ...
    @property
    def checkpoint(self) -> int: ...
    @property
    def layer_type(self) -> str: ...
    @property
    def norm(self) -> float | None: ...


class Panels(NamedTuple):
    """What is drawn: by kind of layer, then by model."""

    panels: dict[str, dict[str, _models.Band]]


def data(rows: Sequence[Line]) -> Panels:
    """Return the root of the sum of squares over the weights of a kind, over the steps of each model."""
    squares: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in rows:
        if row.norm is not None:
            steps = squares.setdefault(row.layer_type, {}).setdefault(row.model, {})
            steps.setdefault(row.checkpoint, []).append(row.norm**2)
    kinds = sorted(squares)
    return Panels({k: {m: _band(steps) for m, steps in squares[k].items()} for k in kinds})


def _band(squares: dict[int, list[float]]) -> _models.Band:
    steps = sorted(squares)
    norms = [math.sqrt(math.fsum(squares[step])) for step in steps]
    return _models.Band(np.array(steps, dtype=float), np.array(norms), np.zeros(len(steps)))


def draw(found: Panels) -> "Figure":
    """Return one panel a kind of layer, on a logarithmic axis where all are above 0."""
    from matplotlib.figure import Figure

    count = max(1, len(found.panels))
    figure = Figure(figsize=(2 + 3.2 * count, 3.6), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    if found.panels:
        _models.over_steps(list(panels), found.panels, {kind: kind for kind in found.panels})
    else:
        _models.empty(panels[0])
    for axes, bands in zip(panels, found.panels.values(), strict=False):
        if all((band.mean > 0).all() for band in bands.values()):
            axes.set_yscale("log")
    return figure
