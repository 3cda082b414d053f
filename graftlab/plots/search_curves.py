"""Scores on validation while trials train; lines that end early were pruned."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "While they train"


def data(source: Searched) -> _search.Trials:
    """Return the trials."""
    return _search.trials(source)


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure."""
    from optuna.visualization import matplotlib

    if not any(found.curves):
        return _search.nothing("no trial was scored while it trained")
    return _search.figure(matplotlib.plot_intermediate_values, found, 1)
