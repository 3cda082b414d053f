"""Size of each weight's change beside the weight itself, by layer and module; blank where there is none."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.plots._models import WeightLine, step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats


# Shapes: L layers, M modules.

DRAWS_FROM = "spectra"
TITLE = "Change of the weights"
WIDEST, TALLEST = 14.0, 12.0  # inches


class Heat(NamedTuple):
    """What is drawn."""

    layers: tuple[str, ...]
    """Numbers, and one without for weights outside of layers."""
    modules: tuple[str, ...]
    values: "Floats"  # (M, L), NaN where there is no such weight, or no value
    measure: str
    """What the values are."""


def data(rows: Sequence[WeightLine]) -> Heat:
    """Return the change relative to the weight where that is known of all, else its Frobenius norm.

    Weights that share a layer and a module's name (a matrix and its bias) add up as squares do; of several
    models the mean of squares stands there, each at its last checkpoint.
    """
    import numpy as np

    last = {row.model: max(step(r) for r in rows if r.model == row.model) for row in rows}
    rows = [row for row in rows if step(row) == last[row.model]]
    known = [row for row in rows if row.change_frobenius_norm is not None]
    relative = bool(known) and all(row.relative_change is not None for row in known)
    numbers = sorted({row.number for row in rows if row.number is not None})
    layers: list[int | None] = [*numbers, *([None] if any(r.number is None for r in rows) else [])]
    modules = list(dict.fromkeys(row.module for row in rows))
    times = Counter(
        (row.model, row.layer) for row in known
    )  # a weight of several seeds counts once
    squares_ML = np.full((len(modules), len(layers)), np.nan)
    for row in known:
        place = modules.index(row.module), layers.index(row.number)
        value = (row.relative_change if relative else row.change_frobenius_norm) or 0.0
        share = value**2 / len(last) / times[row.model, row.layer]
        squares_ML[place] = np.nansum([squares_ML[place], share])
    names = tuple("-" if layer is None else str(layer) for layer in layers)
    measure = "|change| / |weight|" if relative else "|change|"
    return Heat(names, tuple(modules), np.sqrt(squares_ML), measure)


def draw(heat: Heat) -> "Figure":
    """Return the values as an image, one row a module."""
    from matplotlib.figure import Figure

    width, height = 3 + 0.35 * len(heat.layers), 1.5 + 0.35 * len(heat.modules)
    figure = Figure(figsize=(min(WIDEST, width), min(TALLEST, height)), layout="constrained")
    axes = figure.subplots()
    if not heat.modules:
        axes.text(0.5, 0.5, "no weight was changed", ha="center", transform=axes.transAxes)
        return figure
    image = axes.imshow(heat.values, aspect="auto", cmap="viridis", vmin=0)
    axes.set_yticks(range(len(heat.modules)), heat.modules, parse_math=False)
    axes.set_xticks(range(len(heat.layers)), heat.layers)
    axes.set_xlabel("layer")
    figure.colorbar(image, ax=axes, label=heat.measure)
    return figure
