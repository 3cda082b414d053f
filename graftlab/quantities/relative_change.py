"""Frobenius norm of the change over that of the weight before."""

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)
NULL = False


def value(moved: Moved) -> float | None:
    """Return it."""
    size = moved.before.frobenius
    return moved.change.frobenius / size if size else None
