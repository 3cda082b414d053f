"""Each field on its own: values against the objective, later trials darker."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "Field by field"


def data(source: Searched) -> _search.Trials | None:
    """Return the trials."""
    return _search.trials(source, 2)


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure."""
    from optuna.visualization import matplotlib

    layout: _search.Layout = "tight" if len(found.space) == 1 else "constrained"
    return _search.by_value(matplotlib.plot_slice, found, layout)
