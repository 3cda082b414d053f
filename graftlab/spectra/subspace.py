"""How two subspaces lie to each other, each given by an orthonormal basis."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Shapes: D dimensions of the space, K and L of the subspaces.


def angles(one_DK: Floats, other_DL: Floats) -> Floats:
    """Return the principal angles in radians, the largest first, min(K, L) of them; small ones are exact.

    Source: Knyazev and Argentati (2002), as scipy has it: angles below pi/4 come from their sines.
    """
    if not one_DK.shape[1] or not other_DL.shape[1]:
        return np.empty(0)
    from scipy.linalg import subspace_angles

    return np.asarray(subspace_angles(one_DK, other_DL))


def similarity(one_DK: Floats, other_DL: Floats) -> float:
    """Return phi = |A^T B|_F^2 / min(K, L), 0 where they are orthogonal and 1 where one holds the other.

    Source: Hu et al. (2021), LoRA, section 7.2, equation 4.
    """
    smaller = min(one_DK.shape[1], other_DL.shape[1])
    return float(np.square(one_DK.T @ other_DL).sum() / smaller) if smaller else float("nan")


def projector_distance(one_DK: Floats, other_DK: Floats) -> float:
    """Return |A A^T - B B^T|_F / sqrt(2 K), from 0 (the same subspace) to 1 (orthogonal).

    It is the root of the mean squared sine of the principal angles: signs and rotations within either basis
    change nothing.
    """
    found = angles(one_DK, other_DK)
    return float(np.sqrt(np.square(np.sin(found)).mean())) if len(found) else float("nan")
