"""Scores on validation while trials train; lines that end early were pruned."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "While they train"
MOST_NAMED = 20


def data(source: Searched) -> _search.Trials | None:
    """Return the trials; None where none was scored while it trained."""
    found = _search.trials(source, 1)
    return found if found and any(found.curves) else None


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure; more lines than a legend can name have none."""
    from optuna.visualization import matplotlib

    made = _search.figure(matplotlib.plot_intermediate_values, found)
    legend = made.axes[0].get_legend()
    if legend is not None and len(found.numbers) > MOST_NAMED:
        legend.remove()
    return made
