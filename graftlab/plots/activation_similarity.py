"""How far activations are from before training and between models: 1 - debiased CKA; dotted its null."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: P places (-1 what goes into the first block, then the blocks from 0), S steps.

DRAWS_FROM = "cka"
TITLE = "Distance of activations"
BEFORE = "before training"
MOST_INSIDE = 8
"""Names that a panel has room for; more of them stand below it."""
NEAREST = 1e-6
"""Where smaller distances are drawn: float32 activations are no nearer to each other."""


class Block(Protocol):
    """A line of `cka`."""

    @property
    def model(self) -> str: ...
    @property
    def checkpoint(self) -> int | None: ...
    @property
    def other(self) -> str: ...
    @property
    def number(self) -> int | None: ...
    @property
    def debiased_cka(self) -> float | None: ...
    @property
    def null_debiased_cka(self) -> float | None: ...


class Line(NamedTuple):
    """1 - CKA by place; mean and standard deviation over the runs of one name."""

    places: "Floats"  # (P,)
    mean: "Floats"  # (P,)
    deviation: "Floats"  # (P,)
    null: "Floats"  # (P,), NaN where there is none


class Distances(NamedTuple):
    """What is drawn."""

    before: dict[str, Line]
    """Each model at its last checkpoint beside itself before training."""
    between: dict[str, Line]
    """Two models at their last checkpoints."""
    steps: "dict[str, tuple[Floats, Floats]]"
    """Steps (S,) of each model and its mean distance (S,) over the places."""


def data(rows: Sequence[Block]) -> Distances:
    """Return the distances by block, and over the checkpoints."""
    known = [row for row in rows if row.debiased_cka is not None]
    own = [row for row in known if row.other == BEFORE]
    last = [row for found in _models_last(own).values() for row in found]
    pairs = [row for row in known if row.other not in (BEFORE, row.model)]
    return Distances(
        _by_place(last, lambda row: row.model),
        _by_place(pairs, lambda row: f"{row.model} and {row.other}"),
        {
            model: _over_steps(found)
            for model, found in _grouped(own, lambda row: row.model).items()
        },
    )


def _models_last(rows: Sequence[Block]) -> dict[str, list[Block]]:
    last = {model: max(map(_step, own)) for model, own in _grouped(rows, lambda r: r.model).items()}
    return _grouped([row for row in rows if _step(row) == last[row.model]], lambda row: row.model)


def _step(row: Block) -> int:
    return -1 if row.checkpoint is None else row.checkpoint


def _grouped(rows: Sequence[Block], name: Callable[[Block], object]) -> "dict[str, list[Block]]":
    found: dict[str, list[Block]] = {}
    for row in rows:
        found.setdefault(str(name(row)), []).append(row)
    return found


def _by_place(rows: Sequence[Block], name: Callable[[Block], object]) -> dict[str, Line]:
    made = {}
    for called, own in _grouped(rows, name).items():
        places = sorted({_place(row) for row in own})
        distances = [_distances([r for r in own if _place(r) == place]) for place in places]
        nulls = [[r.null_debiased_cka for r in own if _place(r) == place] for place in places]
        made[called] = Line(
            np.array(places, dtype=float),
            np.array([values.mean() for values in distances]),
            np.array([values.std() for values in distances]),
            1 - np.array([np.mean(np.array(values, dtype=float)) for values in nulls]),
        )
    return made


def _place(row: Block) -> int:
    return -1 if row.number is None else row.number


def _distances(rows: Sequence[Block]) -> "Floats":
    return 1 - np.array([row.debiased_cka for row in rows], dtype=float)


def _over_steps(rows: Sequence[Block]) -> "tuple[Floats, Floats]":
    steps = sorted({_step(row) for row in rows})
    means = [_distances([row for row in rows if _step(row) == step]).mean() for step in steps]
    return np.array(steps, dtype=float), np.array(means)


def draw(distances: Distances) -> "Figure":
    """Return three panels: by block from before, by block between models, and over the checkpoints."""
    from matplotlib.figure import Figure

    below = max(map(len, (distances.before, distances.between)))
    height = 4 + (0.1 * below if below > MOST_INSIDE else 0)  # two columns of lines .2 inches high
    figure = Figure(figsize=(13, height), layout="constrained")
    before, between, steps = figure.subplots(1, 3)
    _lines(before, distances.before, "from the model before training")
    _lines(between, distances.between, "between models")
    chosen = _models.colours(list(distances.steps))
    for place, (model, (at_S, mean_S)) in enumerate(distances.steps.items()):
        marker = _models.MARKERS[place % len(_models.MARKERS)]
        shown_S = np.maximum(mean_S, NEAREST)
        steps.plot(at_S, shown_S, marker=marker, markersize=4, color=chosen[model], label=model)
    _finish(steps, "training steps", "mean from before, over training")
    return figure


def _lines(axes: "Axes", lines: Mapping[str, Line], title: str) -> None:
    chosen = _models.colours(list(lines))
    for place, (name, line) in enumerate(lines.items()):
        colour, marker = chosen[name], _models.MARKERS[place % len(_models.MARKERS)]
        shown = np.maximum(line.mean, NEAREST)
        axes.plot(line.places, shown, marker=marker, markersize=4, color=colour, label=name)
        low, high = line.mean - line.deviation, line.mean + line.deviation
        axes.fill_between(
            line.places, np.maximum(low, NEAREST), np.maximum(high, NEAREST), color=colour,
            alpha=0.15, linewidth=0,
        )  # fmt: skip
        axes.plot(line.places, line.null, linestyle=":", color=colour)
    _finish(axes, "block (-1: what goes into the first)", title)


def _finish(axes: "Axes", across: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10)
    if not axes.lines:
        _models.empty(axes)
        return
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(across)
    axes.set_ylabel("1 - debiased CKA")
    _models.plain(axes)
    legend = axes.legend(frameon=False, fontsize=8)
    if len(legend.get_texts()) > MOST_INSIDE:
        legend = axes.legend(
            frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
        )
    for text in legend.get_texts():
        text.set_parse_math(False)
