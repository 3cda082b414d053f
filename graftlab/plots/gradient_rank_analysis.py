"""Figures of all gradients together over the adapter's rank, at the last checkpoint."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.contracts.analysis import GLOBAL
from graftlab.plots import _gradients, _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

DRAWS_FROM = "gradients"
TITLE = "Gradients by the rank of the adapter"
NAME = "lora_rank_analysis"


class ByRank(NamedTuple):
    """What is drawn: by panel, (2, M) ranks and values of the models that have a rank."""

    panels: "dict[str, Floats]"


def data(rows: Sequence[_models.GradientLine]) -> ByRank:
    """Return the points of the models that have a rank."""
    last = _models.last([row for row in _gradients.drawn(rows) if row.layer_type == GLOBAL])
    ranked = sorted(
        (row for own in last.values() for row in own if row.rank), key=lambda r: r.rank or 0
    )
    return ByRank(
        {
            name: np.array([(row.rank, getattr(row, name)) for row in ranked], float)
            .reshape(-1, 2)
            .T
            for name in _gradients.SHOWN
        }
    )


def draw(found: ByRank) -> "Figure":
    """Return one panel a figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(2, 2).flat, found.panels.items(), strict=True):
        if points.shape[1]:
            axes.plot(*points, marker="o", color=_models.COLOURS[0], linestyle="")
            axes.set_xscale("log", base=2)
            ranks = sorted({int(rank) for rank in points[0]})
            axes.set_xticks(ranks, [str(rank) for rank in ranks])
            axes.set_xlabel("rank of the adapter")
            _models.plain(axes)
        else:
            _models.empty(axes)
        axes.set_title(_gradients.SHOWN[name], fontsize=10)
    return figure
