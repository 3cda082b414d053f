"""Mean principal angle (radians) between the spaces of the top left singular vectors now and before."""

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved
from graftlab.spectra.subspace import angles

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    found = angles(*moved.left_spaces())
    return float(found.mean()) if len(found) else None
