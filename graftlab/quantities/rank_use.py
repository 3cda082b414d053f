"""Entropy rank of the change over the adapter's rank: 1 where all its directions are used alike."""

from graftlab.contracts.analysis import MOVE
from graftlab.quantities import entropy_rank
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    found = entropy_rank.value(moved.change)
    return found / moved.rank if found is not None and moved.rank else None
