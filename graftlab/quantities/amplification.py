"""Size of the change over that of the weight before within its directions (Hu et al. 2021, table 7)."""

import numpy as np

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    count = moved.change.defined(moved.rank or moved.top)
    if not count:
        return None
    within = np.linalg.norm(moved.within(moved.change.left(count), moved.change.right(count)))
    return moved.change.frobenius / float(within) if within else None
