"""A change of the same size and rank that has learned nothing: Gaussian factors, scaled to its norm."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Shapes: O and I rows and columns of the weight, R rank.


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
