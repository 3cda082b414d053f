"""Top left singular vectors with |cosine| below epsilon to all before (Shuttleworth et al. 2025)."""

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> int | None:
    """Return it."""
    return int(moved.intruders.sum())
