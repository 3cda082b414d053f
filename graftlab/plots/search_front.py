"""Trials of several objectives; those in red are beaten by no other in all of them."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "Front"


def data(source: Searched) -> _search.Trials | None:
    """Return the trials; None but of two or three objectives."""
    return _search.trials(source, 1) if len(source.objectives) in (2, 3) else None


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure."""
    from optuna.visualization import matplotlib

    return _search.figure(
        lambda study: matplotlib.plot_pareto_front(study, target_names=list(found.objectives)),
        found,
    )
