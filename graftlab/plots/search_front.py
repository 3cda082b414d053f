"""Trials of several objectives; those in red are beaten by no other in all of them."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "Front"


def data(source: Searched) -> _search.Trials:
    """Return the trials."""
    return _search.trials(source)


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure."""
    from optuna.visualization import matplotlib

    if len(found.objectives) not in (2, 3):
        return _search.nothing("a front is of two or three objectives")
    return _search.figure(
        lambda study: matplotlib.plot_pareto_front(study, target_names=list(found.objectives)),
        found,
        1,
    )
