"""What plots of a selection share: how layers stand on an axis, and the names of scores."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import MIXED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from graftlab.contracts.arrays import Integers

MOST_TICKS = 24


def shown(score: str) -> str:
    """Return what a score is called in a figure."""
    return "mixed score" if score == MIXED else score


def ticks(axes: "Axes", layers_L: "Integers", chosen: int) -> None:
    """Name the columns of an image after their layers, the one that is chosen in bold."""
    every = -(-len(layers_L) // MOST_TICKS)
    places = range(0, len(layers_L), every)
    axes.set_xticks(places, [str(layers_L[place]) for place in places])
    for label, place in zip(axes.get_xticklabels(), places, strict=True):
        if layers_L[place] == chosen:
            label.set_fontweight("bold")
    axes.set_xlabel(f"layer (layer {chosen} is chosen)")
