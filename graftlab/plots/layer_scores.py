"""Each score over the layers with its 95 % interval, the mixed one first; the chosen layer is dotted."""

from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts.plot import MIXED, SELECTION, Selected
from graftlab.plots._layers import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats, Integers


# Shapes: L layers, B rows: a score, then its bootstrap samples.

DRAWS_FROM = SELECTION
TITLE = "Scores by layer, with 95 % intervals"
WIDTH = 1.96  # standard deviations of a normal distribution that hold 95 % of it, to either side


class Lines(NamedTuple):
    """What is drawn."""

    layers: "Integers"  # (L,)
    chosen: int
    values: "dict[str, Floats]"  # (L,), NaN where undefined, in the order of the panels
    halves: "dict[str, Floats]"  # (L,), half the width of the interval
    counting: tuple[str, ...]
    """Scores that are part of the mix."""


def data(selected: Selected) -> Lines:
    """Return each score and half its interval: first the mixed one, then those that count."""
    order = dict.fromkeys((MIXED, *selected.counting, *selected.scores))
    return Lines(
        selected.layers,
        selected.chosen,
        {name: selected.scores[name][0] for name in order},
        {name: _half(selected.scores[name]) for name in order},
        selected.counting,
    )


def _half(score_BL: "Floats") -> "Floats":
    """Return 1.96 standard deviations over the bootstrap samples; NaN where there are none."""
    import numpy as np

    if len(score_BL) < 3:
        return np.full(score_BL.shape[1], np.nan)
    deviation_L: Floats = np.std(score_BL[1:], axis=0, ddof=1)
    return WIDTH * deviation_L


def draw(lines: Lines) -> "Figure":
    """Return one panel a score, all over the same layers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    columns = -(-len(lines.values) // 2)
    panels = [*figure.subplots(2, columns, sharex=True, squeeze=False).flat]
    for (name, values_L), axes in zip(lines.values.items(), panels, strict=False):
        half_L, mixed = lines.halves[name], name == MIXED
        counts = mixed or name in lines.counting
        colour = "tab:red" if mixed else "tab:blue" if counts else "tab:gray"
        axes.fill_between(
            lines.layers, values_L - half_L, values_L + half_L, color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(lines.layers, values_L, color=colour, marker="o", markersize=4)
        axes.axvline(lines.chosen, color="black", linestyle=":", linewidth=1)
        title = shown(name) + ("" if counts else ", not counted")
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[len(lines.values) :]:
        axes.set_visible(False)
    figure.supxlabel("layer (dotted: the one chosen)")
    return figure
