"""How much of the spread of values each field explains (fANOVA), over the trials of the search."""

from functools import partial
from typing import TYPE_CHECKING

from graftlab.contracts.plot import SEARCH, Searched
from graftlab.plots import _search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = SEARCH
TITLE = "What mattered"


def data(source: Searched) -> _search.Trials | None:
    """Return the trials; None where there are too few fields, or values, to tell them apart."""
    if len(source.space) < 2 or len({tuple(trial["values"]) for trial in source.trials}) < 3:
        return None
    return _search.trials(source, 4)


def draw(found: _search.Trials) -> "Figure":
    """Return optuna's figure."""
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import matplotlib

    evaluator = FanovaImportanceEvaluator(seed=0)  # the default asks what makes values low
    return _search.by_value(partial(matplotlib.plot_param_importances, evaluator=evaluator), found)
