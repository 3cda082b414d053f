"""Mean |cosine| of the i-th left singular vector with the i-th before, over the top ones or all."""

import numpy as np

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    count = moved.compared
    before, after = moved.before.left(count), moved.weight.left(count)
    count = min(before.shape[1], after.shape[1])
    cosines = np.einsum("ik,ik->k", before[:, :count], after[:, :count])
    return float(np.abs(cosines).mean()) if count else None
