"""Size of the difference of all singular values from those before, over the size of those before."""

import numpy as np

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    before = moved.before
    if not before.largest:
        return None
    return float(np.linalg.norm(moved.weight.values - before.values)) / before.frobenius
