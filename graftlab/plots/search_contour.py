"""The objective over each pair of fields."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "Pair by pair"


def data(source: Searched) -> _search.Trials:
    """Return the trials."""
    return _search.trials(source)


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure."""
    from optuna.visualization import matplotlib

    if len(found.space) < 2:
        return _search.nothing("one field makes no pair")
    return _search.by_value(matplotlib.plot_contour, found, 3)
