"""What plots of spectra share: rows by model, each model's colour, and panels of lines and boxes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: R rows, S steps.

COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000"),
)
"""Okabe and Ito (2008): told apart by colour-blind readers, and in print by their lightness."""
MARKERS = "osD^vPX*"


class Line(Protocol):
    """A line of a table of weights; other columns are read by their names."""

    @property
    def model(self) -> str: ...
    @property
    def checkpoint(self) -> int | None: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def number(self) -> int | None: ...


class WeightLine(Line, Protocol):
    """A line of `spectra`."""

    @property
    def layer(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def relative_change(self) -> float | None: ...
    @property
    def change_frobenius_norm(self) -> float | None: ...


class GradientLine(Line, Protocol):
    """A line of `gradients`."""

    @property
    def mode(self) -> str | None: ...
    @property
    def layer_type(self) -> str: ...


L = TypeVar("L", bound=Line)


class Band(NamedTuple):
    """A number of a model over its checkpoints."""

    steps: "Floats"  # (S,)
    mean: "Floats"  # (S,) over the weights
    deviation: "Floats"  # (S,) over the weights


def last(rows: Sequence[L]) -> dict[str, list[L]]:
    """Return the rows of each model at its last checkpoint, models in the order of the table."""
    found: dict[str, list[L]] = {}
    for row in rows:
        found.setdefault(row.model, []).append(row)
    return {
        model: [row for row in own if step(row) == max(map(step, own))]
        for model, own in found.items()
    }


def step(row: Line) -> int:
    """Return a row's checkpoint; -1 where it is not known."""
    return -1 if row.checkpoint is None else int(row.checkpoint)


def column(rows: Sequence[object], name: str) -> "Floats":
    """Return (R,) a column's values that are there and finite."""
    values = np.array([getattr(row, name, None) for row in rows], dtype=float)
    return values[np.isfinite(values)]


def bands(rows: Sequence[L], name: str) -> dict[str, Band]:
    """Return a column over the checkpoints of each model: mean and standard deviation over its weights."""
    found: dict[str, dict[int, list[L]]] = {}
    for row in rows:
        found.setdefault(row.model, {}).setdefault(step(row), []).append(row)
    made = {}
    for model, by_step in found.items():
        steps = sorted(by_step)
        values = [column(by_step[at], name) for at in steps]
        kept = [(at, v) for at, v in zip(steps, values, strict=True) if len(v)]
        made[model] = Band(
            np.array([at for at, _ in kept], dtype=float),
            np.array([v.mean() for _, v in kept]),
            np.array([v.std() for _, v in kept]),
        )
    return made


def colours(models: Sequence[str]) -> dict[str, str]:
    """Return a colour for each model, the same for the same list of models."""
    return {model: COLOURS[place % len(COLOURS)] for place, model in enumerate(models)}


def lines(axes: "Axes", found: Mapping[str, Band]) -> None:
    """Draw each model's mean with a band of one standard deviation; a single point is a marker."""
    chosen = colours(list(found))
    for place, (model, band) in enumerate(found.items()):
        if not len(band.steps):
            continue
        marker = MARKERS[place % len(MARKERS)]
        axes.plot(
            band.steps, band.mean, marker=marker, markersize=4, color=chosen[model], label=model
        )
        low, high = band.mean - band.deviation, band.mean + band.deviation
        axes.fill_between(band.steps, low, high, color=chosen[model], alpha=0.15, linewidth=0)
    plain(axes)


def over_steps(
    panels: "Sequence[Axes]", found: Mapping[str, Mapping[str, Band]], titles: Mapping[str, str]
) -> None:
    """Draw a panel a number, each model over its checkpoints, and name the models beside them."""
    for axes, (name, models) in zip(panels, found.items(), strict=True):
        if any(len(band.steps) for band in models.values()):
            lines(axes, models)
            axes.set_xlabel("training steps")
        else:
            empty(axes)
        axes.set_title(titles[name], fontsize=10)
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    legend(figure, max(panels, key=lambda axes: len(axes.lines)))


def boxes(axes: "Axes", values: Mapping[str, "Floats"]) -> None:
    """Draw a box for each model that has values, named below it."""
    kept = {model: v for model, v in values.items() if len(v)}
    chosen = colours(list(values))
    if not kept:
        empty(axes)
        return
    drawn = axes.boxplot(list(kept.values()), patch_artist=True, medianprops={"color": "black"})
    for box, model in zip(drawn["boxes"], kept, strict=True):
        box.set_facecolor(chosen[model])
        box.set_alpha(0.6)
    axes.set_xticks(range(1, len(kept) + 1), list(kept), rotation=30, ha="right", parse_math=False)
    plain(axes)


def empty(axes: "Axes") -> None:
    """Say that there is nothing to be drawn."""
    axes.text(0.5, 0.5, "no values", ha="center", va="center", transform=axes.transAxes)
    plain(axes)


def plain(axes: "Axes") -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: "Figure", axes: "Axes") -> None:
    """Name the models beside the panels, where any is drawn."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        made = figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
        for text in made.get_texts():
            text.set_parse_math(False)
