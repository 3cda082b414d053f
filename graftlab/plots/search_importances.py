"""How much of the spread of values each field explains (fANOVA), over the trials of the search."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "What mattered"


def data(source: Searched) -> _search.Trials:
    """Return the trials."""
    return _search.trials(source)


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure."""
    from optuna.visualization import matplotlib

    if len(found.space) < 2 or len({tuple(values) for values in found.values}) < 3:
        return _search.nothing("too few fields, or values, to tell them apart")
    return _search.by_value(matplotlib.plot_param_importances, found, 4)
