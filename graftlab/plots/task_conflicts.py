"""Cosines between the gradients of a mixture's tasks: all layers together, and by block; 0 is chance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from graftlab.contracts.analysis import GLOBAL
from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: T tasks, P pairs of them, L blocks.

DRAWS_FROM = "conflicts"
TITLE = "Conflicts between tasks"
WIDEST, TALLEST = 20.0, 40.0  # inches


class Line(Protocol):
    """A line of `conflicts`."""

    @property
    def model(self) -> str: ...
    @property
    def pair(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def other_task(self) -> str: ...
    @property
    def layer(self) -> str: ...
    @property
    def cosine(self) -> float | None: ...


class Cosines(NamedTuple):
    """What is drawn of one model."""

    tasks: tuple[str, ...]
    together: "Floats"  # (T, T), NaN where undefined
    pairs: tuple[str, ...]
    layers: tuple[str, ...]
    by_layer: "Floats"  # (P, L)


class Models(NamedTuple):
    """What is drawn, by model."""

    models: dict[str, Cosines]


def data(rows: Sequence[Line]) -> Models:
    """Return each model's cosines: of several seeds the mean."""
    found: dict[str, list[Line]] = {}
    for row in rows:
        found.setdefault(row.model, []).append(row)
    return Models({model: _cosines(own) for model, own in found.items()})


def _cosines(rows: Sequence[Line]) -> Cosines:
    tasks = list(dict.fromkeys(task for row in rows for task in (row.task, row.other_task)))
    pairs = list(dict.fromkeys(row.pair for row in rows))
    layers = list(dict.fromkeys(row.layer for row in rows if row.layer != GLOBAL))
    together = np.full((len(tasks), len(tasks)), np.nan)
    np.fill_diagonal(together, 1.0)
    by_layer = np.full((len(pairs), len(layers)), np.nan)
    for pair in pairs:
        own = [row for row in rows if row.pair == pair]
        one, other = tasks.index(own[0].task), tasks.index(own[0].other_task)
        together[one, other] = together[other, one] = _mean(own, GLOBAL)
        by_layer[pairs.index(pair)] = [_mean(own, layer) for layer in layers]
    return Cosines(tuple(tasks), together, tuple(pairs), tuple(layers), by_layer)


def _mean(rows: Sequence[Line], layer: str) -> float:
    values = [row.cosine for row in rows if row.layer == layer and row.cosine is not None]
    return float(np.mean(values)) if values else float("nan")


def draw(found: Models) -> "Figure":
    """Return a row a model: the matrix of tasks, and pairs by block; blue pull together, red apart."""
    from matplotlib.figure import Figure

    if not found.models:
        figure = Figure(figsize=(6, 2), layout="constrained")
        _models.empty(figure.subplots())
        return figure
    tasks = max(len(cosines.tasks) for cosines in found.models.values())
    blocks = max(len(cosines.layers) for cosines in found.models.values())
    height = sum(
        1.6 + 0.45 * max(len(cosines.tasks), len(cosines.pairs))
        for cosines in found.models.values()
    )
    figure = Figure(
        figsize=(min(WIDEST, 6 + 0.7 * tasks + 0.35 * blocks), min(TALLEST, height)),
        layout="constrained",
    )
    grid = figure.subplots(
        len(found.models), 2, squeeze=False, width_ratios=(tasks + 1, max(blocks, 2) + 1)
    )
    for (left, right), (model, cosines) in zip(grid, found.models.items(), strict=True):
        _matrix(left, cosines.together, cosines.tasks, cosines.tasks, numbers=True)
        left.set_title(f"{model}: all layers", fontsize=9, parse_math=False)
        image = _matrix(right, cosines.by_layer, cosines.pairs, cosines.layers, numbers=False)
        right.set_title("by block", fontsize=9)
        figure.colorbar(image, ax=right, label="cosine")
    return figure


def _matrix(
    axes: "Axes", values: "Floats", rows: Sequence[str], columns: Sequence[str], numbers: bool
) -> Any:
    image = axes.imshow(values, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
    axes.set_yticks(range(len(rows)), rows, fontsize=8, parse_math=False)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7, parse_math=False)
    for place, value in np.ndenumerate(values) if numbers else ():
        if np.isfinite(value):
            shown, colour = f"{value:z.2f}", "white" if abs(value) > 0.6 else "black"
            axes.text(place[1], place[0], shown, ha="center", va="center", fontsize=8, color=colour)
    return image
