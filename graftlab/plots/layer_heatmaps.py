"""Numbers of each weight by layer and module, a row of panels a model; blank where there is none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: L layers, M modules.

DRAWS_FROM = "spectra"
TITLE = "By layer and module"
PANELS = {
    "relative_change": "size of the change / size before",
    "mean_principal_angle": "mean principal angle (radians)",
    "intruder_energy": "energy of intruders",
    "change_stable_rank": "stable rank of the change",
}
WIDEST, TALLEST = 20.0, 40.0  # inches


class Heats(NamedTuple):
    """What is drawn, at each model's last checkpoint."""

    layers: tuple[str, ...]
    modules: tuple[str, ...]
    values: "dict[str, dict[str, Floats]]"  # panel -> model -> (M, L), NaN where there is none


def data(rows: Sequence[_models.WeightLine]) -> Heats:
    """Return the mean over the weights (matrix and bias are two) of each layer and module of each model."""
    last = _models.last([row for row in rows if row.number is not None])
    every = [row for own in last.values() for row in own]
    numbers = sorted({row.number for row in every if row.number is not None})
    modules = sorted({row.module for row in every})
    values = {
        panel: {model: _mean(own, panel, modules, numbers) for model, own in last.items()}
        for panel in PANELS
    }
    return Heats(tuple(map(str, numbers)), tuple(modules), values)


def _mean(
    rows: Sequence[_models.WeightLine], panel: str, modules: Sequence[str], numbers: Sequence[int]
) -> "Floats":
    found = np.full((len(modules), len(numbers)), np.nan)
    for place, module in enumerate(modules):
        for column, number in enumerate(numbers):
            own = [row for row in rows if (row.module, row.number) == (module, number)]
            if len(kept := _models.column(own, panel)):
                found[place, column] = kept.mean()
    return found


def draw(heats: Heats) -> "Figure":
    """Return a row of images a model; the models share the colours of a panel."""
    from matplotlib.figure import Figure

    models = list(next(iter(heats.values.values())))
    if not models:
        figure = Figure(figsize=(6, 2), layout="constrained")
        _models.empty(figure.subplots())
        return figure
    width = 1.5 + len(PANELS) * (1.8 + 0.16 * len(heats.layers))
    height = 0.8 + len(models) * (0.9 + 0.22 * len(heats.modules))
    figure = Figure(figsize=(min(WIDEST, width), min(TALLEST, height)), layout="constrained")
    grid = figure.subplots(len(models), len(PANELS), squeeze=False, sharex=True, sharey=True)
    for column, (panel, found) in enumerate(heats.values.items()):
        known = np.concatenate([v[np.isfinite(v)] for v in found.values()])
        top = float(known.max()) if len(known) and known.max() > 0 else 1.0
        for row, (model, values_ML) in enumerate(found.items()):
            axes = grid[row, column]
            image = axes.imshow(values_ML, aspect="auto", cmap="cividis", vmin=0, vmax=top)
            if row == 0:
                axes.set_title(PANELS[panel], fontsize=9)
            if column == 0:
                axes.set_ylabel(model, fontsize=8, parse_math=False)
                axes.set_yticks(
                    range(len(heats.modules)), heats.modules, fontsize=7, parse_math=False
                )
        grid[-1, column].set_xlabel("layer", fontsize=8)
        _ticks(grid[-1, column], heats.layers)
        figure.colorbar(image, ax=list(grid[:, column]), location="bottom", shrink=0.8)
    return figure


def _ticks(axes: "Axes", layers: Sequence[str]) -> None:
    """Name the first layer and every so many after it."""
    every = -(-len(layers) // 12)
    axes.set_xticks(range(0, len(layers), every), layers[::every], fontsize=7)
