"""Figures over seeds that one run far off moves little, and a count of such runs."""

from collections.abc import Sequence

import numpy as np

FAR_BELOW = 3.0
"""Collapsed: so many scaled median deviations below the median."""
NORMAL = 1.4826  # median absolute deviation to standard deviation, of a normal distribution
LEAST_FALL = 0.1  # of the median: seeds that are almost equal are no collapse for a hair's breadth


def probability_of_improvement(first: Sequence[float], second: Sequence[float]) -> float:
    """Return P(first > second) + P(equal) / 2 over all pairs of seeds: Mann and Whitney's U / (n m).

    Source: Agarwal et al. (2021), Deep RL at the Edge of the Statistical Precipice, equation 1.
    """
    gap = np.asarray(first, float)[:, None] - np.asarray(second, float)[None, :]
    return float(np.mean((gap > 0) + 0.5 * (gap == 0)))


def interquartile_mean(scores: Sequence[float]) -> float:
    """Return the mean of the middle half: a quarter of the scores, rounded down, is left out at either end.

    Source: Agarwal et al. (2021), section 4.3.
    """
    from scipy.stats import trim_mean

    return float(trim_mean(np.asarray(scores, float), 0.25))


def collapsed(scores: Sequence[float], higher: bool = True) -> list[int]:
    """Return the places of runs that are far worse than the rest of their row: three scaled median absolute
    deviations from the median, and a tenth of it at least (Hampel's rule). Of fewer than three, none."""
    values = np.asarray(scores, float) * (1 if higher else -1)
    if len(values) < 3:
        return []
    middle = float(np.median(values))
    spread = NORMAL * float(np.median(np.abs(values - middle)))
    edge = middle - max(FAR_BELOW * spread, LEAST_FALL * abs(middle))
    return [place for place, value in enumerate(values) if value < edge]
