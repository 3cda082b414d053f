"""Spearman correlation of the singular values with those before; both are sorted, so it is near 1."""

import numpy as np

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    before, after = moved.before.values, moved.weight.values
    if len(before) < 2 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(before, after).statistic)
