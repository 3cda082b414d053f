"""What plots of gradients share: which rows are drawn, and figures by model and kind of layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.contracts.analysis import GLOBAL, WEIGHT
from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: M models, K kinds of layers.

SHOWN = {
    "mean": "mean |gradient|",
    "std": "standard deviation",
    "norm": "norm",
    "sparsity": "share of exact zeros",
}


class ByKind(NamedTuple):
    """A figure of each model at its last checkpoint, by kind of layer."""

    models: tuple[str, ...]
    kinds: tuple[str, ...]
    values: "Floats"  # (M, K), mean over the weights of that kind; NaN where there is none
    shown: str


def drawn(rows: Sequence[_models.GradientLine]) -> list[_models.GradientLine]:
    """Return the rows of whole weights, which can be compared between methods."""
    return [row for row in rows if row.mode == WEIGHT]


def by_kind(rows: Sequence[_models.GradientLine], figure: str) -> ByKind:
    """Return one figure by model and kind of layer."""
    last = _models.last([row for row in drawn(rows) if row.layer_type != GLOBAL])
    kinds = tuple(sorted({row.layer_type for own in last.values() for row in own}))
    values = np.full((len(last), len(kinds)), np.nan)
    for place, own in enumerate(last.values()):
        for column, kind in enumerate(kinds):
            found = _models.column([row for row in own if row.layer_type == kind], figure)
            if len(found):
                values[place, column] = found.mean()
    return ByKind(tuple(last), kinds, values, SHOWN[figure])


def bars(found: ByKind) -> "Figure":
    """Return bars by kind of layer, a colour a model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    if not found.models:
        _models.empty(axes)
        return figure
    chosen, width = _models.colours(found.models), 0.8 / len(found.models)
    places = np.arange(len(found.kinds))
    for number, model in enumerate(found.models):
        axes.bar(
            places + (number + 0.5) * width - 0.4, np.nan_to_num(found.values[number]), width,
            color=chosen[model], label=model,
        )  # fmt: skip
    axes.set_xticks(places, found.kinds)
    axes.set_ylabel(found.shown)
    _models.plain(axes)
    _models.legend(figure, axes)
    return figure
