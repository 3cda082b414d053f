"""Correlation of labels and predictions, for regression: Pearson's, Spearman's of ranks, or their mean.

Standard error: delete-one jackknife, exact.
"""

# Shapes: N examples.

import math
from typing import TYPE_CHECKING, Literal

from graftlab.config import Section
from graftlab.metrics import Predictions, Score, pairs
from graftlab.metrics._confusion import standard_error

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats

HIGHER_IS_BETTER = True
PROBLEMS = ("regression",)
ROUNDING = 1e-13
"""A spread that is smaller than this, relative to the mean, is that of rounding: scipy's bound."""


class Config(Section):
    """Settings of the correlation."""

    of: Literal["values", "ranks", "both"] = "values"
    """Of the values themselves (Pearson), of their ranks (Spearman), or the mean of these two, GLUE's figure
    for STS-B."""


def pearson_left(x_N: "Floats", y_N: "Floats") -> "Floats":
    """Return (N,) Pearson correlations, each without one example; NaN where that is not defined.

    Without example i, sum (x - mean)(y - mean) is less by N / (N - 1) (x_i - mean)(y_i - mean).
    """
    import numpy as np

    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()

    def left(a_N: "Floats", b_N: "Floats") -> "Floats":
        return a_N @ b_N - a_N * b_N * len(a_N) / (len(a_N) - 1)

    spreads_N = left(x_N, x_N), left(y_N, y_N)
    constant_N = (spreads_N[0] < 1e-12 * (x_N @ x_N)) | (spreads_N[1] < 1e-12 * (y_N @ y_N))
    return np.where(constant_N, np.nan, left(x_N, y_N) / np.sqrt(spreads_N[0] * spreads_N[1]))


def spearman_left(x_N: "Floats", y_N: "Floats") -> "Floats":
    """Return (N,) rank correlations, each without one example; NaN where that is not defined.

    Without example i, the ranks above its own are less by 1 and equal ones by 1/2.
    """
    import numpy as np
    from scipy.stats import rankdata

    x_N, y_N = rankdata(x_N), rankdata(y_N)
    left_N = np.empty(len(x_N))
    for i in range(len(x_N)):
        a_N, b_N = ((np.delete(r_N, i), r_N[i]) for r_N in (x_N, y_N))
        a_N, b_N = (r_N - (r_N > own) - (r_N == own) / 2 for r_N, own in (a_N, b_N))
        a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
        left_N[i] = a_N @ b_N / np.sqrt((a_N @ a_N) * (b_N @ b_N))
    return left_N


def score(predictions: Predictions, config: Config) -> Score:
    """Return the correlation in -1..1; undefined for constant labels or predictions."""
    import numpy as np
    from scipy.stats import pearsonr, spearmanr

    whole = [pearsonr] * (config.of != "ranks") + [spearmanr] * (config.of != "values")
    without = [pearson_left] * (config.of != "ranks") + [spearman_left] * (config.of != "values")
    labels, predicted = pairs(predictions)
    x_N, y_N = np.array(labels, dtype=float), np.array(predicted, dtype=float)
    if len(x_N) < 2:
        return Score(None, None, f"a correlation needs two examples; there are {len(x_N)}")
    if strange := int((~np.isfinite(y_N)).sum()):
        return Score(None, None, f"{strange} of {len(y_N)} predictions are not finite")
    for what, values_N in (("labels", x_N), ("predictions", y_N)):
        if np.linalg.norm(values_N - values_N.mean()) <= ROUNDING * abs(values_N.mean()):
            return Score(None, None, f"all {what} are the same, or differ by rounding alone")
    with np.errstate(divide="ignore", invalid="ignore"):
        left_N = np.mean([left(x_N, y_N) for left in without], axis=0)
        error = standard_error(left_N, np.ones(len(x_N)))
    value = float(np.mean([correlate(x_N, y_N).statistic for correlate in whole]))
    assert math.isfinite(value)
    reason = None if error is not None else "no standard error: it hangs on a single example"
    return Score(value, error, reason)
