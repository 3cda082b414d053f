"""Numbers of the adapted weights over the adapter's rank, at the last checkpoint; a point is one weight."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

DRAWS_FROM = "spectra"
TITLE = "By the rank of the adapter"
PANELS = {
    "effective_rank": "effective rank (above 1e-5)",
    "rank_95_energy": "rank of 95 % of the sum",
    "spectral_norm": "spectral norm",
    "condition_number": "condition number",
    "change_stable_rank": "stable rank of the change",
    "intruder_dimensions": "intruder dimensions",
}


class ByRank(NamedTuple):
    """What is drawn: by panel, then by model, (2, R) ranks and values."""

    panels: "dict[str, dict[str, Floats]]"


def data(rows: Sequence[_models.Line]) -> ByRank:
    """Return the points of the models that have a rank."""
    own = {m: [row for row in r if row.rank] for m, r in _models.last(rows).items()}
    return ByRank({name: {m: _points(r, name) for m, r in own.items() if r} for name in PANELS})


def _points(rows: Sequence[_models.Line], name: str) -> "Floats":
    found = np.array([(row.rank, getattr(row, name)) for row in rows], dtype=float).T
    return found[:, np.isfinite(found).all(axis=0)]


def draw(by_rank: ByRank) -> "Figure":
    """Return one panel a number."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    panels = figure.subplots(2, 3)
    for axes, (name, found) in zip(panels.flat, by_rank.panels.items(), strict=True):
        chosen = _models.colours(list(found))
        for place, (model, points) in enumerate(found.items()):
            if points.shape[1]:
                axes.scatter(
                    *points, s=18, alpha=0.6, color=chosen[model], label=model,
                    marker=_models.MARKERS[place % len(_models.MARKERS)],
                )  # fmt: skip
        if any(points.shape[1] for points in found.values()):
            axes.set_xscale("log", base=2)
            ranks = sorted({int(rank) for points in found.values() for rank in points[0]})
            axes.set_xticks(ranks, [str(rank) for rank in ranks])
            axes.set_xlabel("rank of the adapter")
            _models.plain(axes)
        else:
            _models.empty(axes)
        if name == "condition_number" and axes.collections:
            axes.set_yscale("log")
        axes.set_title(PANELS[name], fontsize=10)
    _models.legend(figure, panels[1, 1] if panels[1, 1].collections else panels[0, 0])
    return figure
