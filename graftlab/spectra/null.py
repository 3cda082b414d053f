"""What has learned nothing: a change of the same size and rank, and factors on others that are given."""

import numpy as np
from numpy.typing import NDArray

from graftlab.spectra import subspace

Floats = NDArray[np.float64]

DRAWS = 20
"""Of which the mean is taken."""

# Shapes: O and I rows and columns of the weight, R rank, K and L singular vectors.


def random_change(
    shape: tuple[int, int], rank: int | None, norm: float, draws: np.random.Generator
) -> tuple[Floats, Floats | None]:
    """Return left (O, R) and right (R, I) whose product has that Frobenius norm; of a change without a rank,
    or one as large as the matrix, the whole (O, I) and None."""
    if rank is None or rank >= min(shape):
        whole = draws.standard_normal(shape)
        return whole * (norm / np.linalg.norm(whole)), None
    left, right = draws.standard_normal((shape[0], rank)), draws.standard_normal((rank, shape[1]))
    size = np.sqrt(np.einsum("ij,ij->", left.T @ left, right @ right.T))
    return left * (norm / size), right


def phi_over(
    rights: tuple[Floats, Floats], rows: int, counts: tuple[int, int], draws: np.random.Generator
) -> float:
    """Return the mean phi of the top right singular vectors, K and L of them, of two changes whose right
    factors (R, I) are given and whose left factors (O, R) learned nothing."""
    bases = [np.linalg.qr(right.T) for right in rights]
    found = []
    for _ in range(DRAWS):
        spaces = []
        for (basis_IR, upper_RR), count in zip(bases, counts, strict=True):
            left = draws.standard_normal((rows, len(upper_RR)))
            turned_RR = np.linalg.eigh(upper_RR @ (left.T @ left) @ upper_RR.T)[1]
            spaces.append(basis_IR @ turned_RR[:, ::-1][:, :count])
        found.append(subspace.similarity(*spaces))
    return float(np.mean(found))
