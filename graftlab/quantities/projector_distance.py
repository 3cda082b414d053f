"""Distance of the projectors onto the top left singular vectors now and before: 0 the same, 1 orthogonal."""

import numpy as np

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved
from graftlab.spectra.subspace import projector_distance

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    distance = projector_distance(*moved.left_spaces())
    return None if np.isnan(distance) else distance
