"""Each trial as a line through its values; dark lines are the best."""

from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "Trials side by side"


def data(source: Searched) -> _search.Trials | None:
    """Return the trials."""
    return _search.trials(source, 2)


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure, wide enough for its fields."""
    from optuna.visualization import matplotlib

    made = _search.by_value(matplotlib.plot_parallel_coordinate, found)
    made.set_size_inches(max(6.4, 1.7 * (len(found.space) + 1)), 4.8)
    made.axes[0].tick_params("x", labelrotation=20)
    return made
