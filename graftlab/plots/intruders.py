"""Directions among a weight's largest that the pretrained weight did not have, beside a random change's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: M models.

DRAWS_FROM = "spectra"
TITLE = "Intruder dimensions"


class Intruders(NamedTuple):
    """What is drawn, at each model's last checkpoint."""

    models: tuple[str, ...]
    counts: "Floats"  # (M,) a weight, on average
    null: "Floats"  # (M,) the same of random changes; NaN where none was drawn
    energy: "Floats"  # (M,) share of the weight's squared norm, on average
    null_energy: "Floats"  # (M,)


def data(rows: Sequence[_models.Line]) -> Intruders:
    """Return the means over the weights of each model that is compared with the weights before."""
    own = {
        m: r for m, r in _models.last(rows).items() if len(_models.column(r, "intruder_dimensions"))
    }

    def of(name: str) -> "Floats":
        found = [_models.column(r, name) for r in own.values()]
        return np.array([v.mean() if len(v) else np.nan for v in found])

    return Intruders(
        tuple(own),
        of("intruder_dimensions"),
        of("null_intruder_dimensions"),
        of("intruder_energy"),
        of("null_intruder_energy"),
    )


def draw(found: Intruders) -> "Figure":
    """Return a bar a model for counts and one for energy; a dashed line is a random change's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    drawn = (
        (found.counts, found.null, "a weight"),
        (found.energy, found.null_energy, "share of energy"),
    )
    for axes, (values_M, null_M, title) in zip(panels, drawn, strict=True):
        if not len(found.models):
            _models.empty(axes)
            continue
        places = np.arange(len(found.models))
        chosen = _models.colours(found.models)
        axes.bar(places, values_M, color=[chosen[model] for model in found.models], alpha=0.7)
        axes.hlines(null_M, places - 0.4, places + 0.4, colors="black", linestyles="dashed")
        axes.set_xticks(places, found.models, rotation=30, ha="right", parse_math=False)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(bottom=0)
        _models.plain(axes)
    return figure
