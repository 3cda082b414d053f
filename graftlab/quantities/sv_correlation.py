"""Spearman correlation of the singular values with those before; both are sorted, so it is near 1."""

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    before, after = moved.before.values, moved.weight.values
    if len(before) < 2 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return None
    return float(np.corrcoef(_ranks(before), _ranks(after))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the place of each value, equal ones at the mean of theirs."""
    ordered = np.sort(values)
    first, last = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (first + last) / 2
