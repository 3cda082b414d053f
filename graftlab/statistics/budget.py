"""What tuning buys: the best score that so many trials are expected to find."""

import math
from collections.abc import Sequence

import numpy as np


def expected_best(scores: Sequence[float | None], higher: bool) -> tuple[float, ...]:
    """Return E[best of n] for n = 1 .. N, of N scores drawn with replacement.

    Source: Dodge et al. (2019), Show Your Work, equation 7: sum over v of v (P(best <= v) - P(best < v)).
    """
    known = np.array([score for score in scores if score is not None and math.isfinite(score)])
    if not len(known):
        return ()
    sign = 1.0 if higher else -1.0
    sorted_N = np.sort(sign * known)
    below_N = np.arange(len(known) + 1) / len(known)
    return tuple(
        float(sign * (sorted_N * np.diff(below_N**count)).sum())
        for count in range(1, len(known) + 1)
    )
