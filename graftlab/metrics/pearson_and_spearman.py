"""Mean of Pearson and Spearman correlation, GLUE's figure for STS-B. Standard error: jackknife."""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._correlation import pearson_left, scored, spearman_left

HIGHER_IS_BETTER = True


def score(predictions: Predictions) -> Score:
    """Return the mean in -1..1; undefined for constant labels or predictions."""
    from scipy.stats import pearsonr, spearmanr

    return scored(
        predictions,
        lambda x_N, y_N: (pearsonr(x_N, y_N).statistic + spearmanr(x_N, y_N).statistic) / 2,
        lambda x_N, y_N: (pearson_left(x_N, y_N) + spearman_left(x_N, y_N)) / 2,
    )
