"""The objective over each pair of fields."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "Pair by pair"


def data(source: Searched) -> _search.Trials | None:
    """Return the trials; None of one field, which makes no pair."""
    return _search.trials(source, 3) if len(source.space) > 1 else None


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure, a square of paper for each pair."""
    from optuna.visualization import matplotlib

    fields = len(found.space)
    if fields == 2:
        return _search.by_value(matplotlib.plot_contour, found)
    made = _search.by_value(matplotlib.plot_contour, found, "constrained")
    made.set_size_inches(1.9 * fields + 1.2, 1.7 * fields)
    for axes in made.axes:
        axes.tick_params(which="both", labelsize=7)
        if axes.get_subplotspec() is not None:
            axes.label_outer()
    return made
