"""Rank correlation of labels and predictions, for regression. Standard error: jackknife."""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._correlation import scored, spearman_left

HIGHER_IS_BETTER = True


def score(predictions: Predictions) -> Score:
    """Return the correlation in -1..1; undefined for constant labels or predictions."""
    from scipy.stats import spearmanr

    return scored(predictions, lambda x_N, y_N: spearmanr(x_N, y_N).statistic, spearman_left)
