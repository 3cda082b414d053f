"""How alike the changes of two models are: phi of what they write and read, the random share taken off."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: M models.

DRAWS_FROM = "subspaces"
ALL = 1 - 1e-9  # of a null: the spaces are the same whatever was learned
TITLE = "Shared directions of the changes"
SIDES = {"left_similarity": "what is written (left)", "right_similarity": "what is read (right)"}


class Pair(Protocol):
    """A line of `subspaces`; the similarities are read by their names."""

    @property
    def model(self) -> str: ...
    @property
    def other(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def left_similarity(self) -> float | None: ...


class Shared(NamedTuple):
    """What is drawn: mean over the weights, between the last checkpoints."""

    models: tuple[str, ...]
    values: "dict[str, Floats]"  # (M, M) by side: 0 what random spaces have, 1 the same space


def data(rows: Sequence[Pair]) -> Shared:
    """Return (phi - null) / (1 - null) at the most dimensions that were compared, mean over the weights."""
    between = [row for row in rows if row.model != row.other and row.left_similarity is not None]
    models = tuple(dict.fromkeys(name for row in between for name in (row.model, row.other)))
    most = max((row.dimensions for row in between), default=0)
    between = [row for row in between if row.dimensions == most]
    return Shared(models, {side: _matrix(between, models, side) for side in SIDES})


def _matrix(rows: Sequence[Pair], models: Sequence[str], side: str) -> "Floats":
    found = np.eye(len(models))
    for place, model in enumerate(models):
        for other_place, other in enumerate(models[:place]):
            values = [
                (getattr(row, side) - getattr(row, f"null_{side}"))
                / (1 - getattr(row, f"null_{side}"))
                for row in rows
                if {row.model, row.other} == {model, other} and getattr(row, f"null_{side}") < ALL
            ]
            mean = float(np.mean(values)) if values else np.nan
            found[place, other_place] = found[other_place, place] = mean
    return found


def draw(shared: Shared) -> "Figure":
    """Return a square a side, models by models, each pair with its number."""
    from matplotlib.figure import Figure

    size = 2.6 + 0.7 * max(2, len(shared.models))
    figure = Figure(figsize=(2 * size, size), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (side, values_MM) in zip(panels, shared.values.items(), strict=True):
        axes.set_title(SIDES[side], fontsize=10)
        if not shared.models:
            axes.text(0.5, 0.5, "no two models", ha="center", transform=axes.transAxes)
            continue
        image = axes.imshow(values_MM, vmin=0, vmax=1, cmap="cividis")
        places = range(len(shared.models))
        axes.set_xticks(places, shared.models, rotation=30, ha="right", parse_math=False)
        axes.set_yticks(places, shared.models, parse_math=False)
        for row in places:
            for column in places:
                dark = values_MM[row, column] < 0.6
                text = f"{values_MM[row, column]:z.2f}"  # z: no -0.00
                axes.text(column, row, text, ha="center", va="center", color="w" if dark else "k")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
