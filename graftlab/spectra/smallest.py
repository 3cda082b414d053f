"""The few smallest singular values of a matrix, where its Gram matrix has them too coarsely."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Shapes: M rows, N <= M columns, C vectors.

GUARD = 8
"""Vectors beyond those that are wanted: the iteration converges as the squared ratio of the values there."""
MOST = 24
"""Values; for more a full decomposition is as quick."""
ROUNDS, CLOSE = 40, 1e-9


def smallest(tall_MN: Floats, count: int) -> Floats | None:
    """Return the `count` smallest singular values, the largest first, by inverse iteration on R of W = Q R.

    None where they are too many, or do not settle: the matrix is singular, say. Their error is that of R, eps
    of the largest singular value (Golub and Van Loan, Matrix Computations, 8.2).
    """
    from scipy.linalg import solve_triangular

    size = tall_MN.shape[1]
    if count > MOST or 4 * (count + GUARD) > size:
        return None
    upper_NN = np.linalg.qr(tall_MN, mode="r")
    diagonal = np.abs(np.diagonal(upper_NN))
    if diagonal.min() <= size * np.finfo(float).eps * diagonal.max():
        return None
    draws = np.random.default_rng(0)
    basis_NC = np.linalg.qr(draws.standard_normal((size, count + GUARD)))[0]
    before = np.full(count, np.inf)
    for _ in range(ROUNDS):
        back_NC = solve_triangular(upper_NN, basis_NC, trans="T")
        basis_NC = np.linalg.qr(solve_triangular(upper_NN, back_NC))[0]
        values = np.linalg.svd(upper_NN @ basis_NC, compute_uv=False)[-count:]
        if np.all(np.abs(values - before) <= CLOSE * values):
            return np.asarray(values)
        before = values
    return None
