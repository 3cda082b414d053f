"""A symmetric matrix as a tridiagonal one: all its eigenvalues, and only the eigenvectors that are asked for.

G = Q T Q^T by Householder reflections (LAPACK's dsytrd), once. T's eigenvalues cost next to nothing, and the
reflections carry the few eigenvectors that are wanted back (Golub and Van Loan, Matrix Computations, 8.3).
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal, lapack

Floats = NDArray[np.float64]

# Shapes: N rows and columns of the matrix, K eigenvectors.


class Tridiagonal:
    """A symmetric matrix (N, N), reduced. The matrix that is given is overwritten."""

    def __init__(self, matrix: Floats) -> None:
        """Reduce a symmetric matrix in float64, of which the lower triangle is read."""
        size = len(matrix)
        self.size = size
        if size < 2:
            self._diagonal, self._beside = matrix.reshape(-1).copy(), np.empty(0)
            return
        work = int(lapack.dsytrd_lwork(size, lower=1)[0])
        self._reflectors, self._diagonal, self._beside, self._scales, info = lapack.dsytrd(
            matrix, lower=1, lwork=work, overwrite_a=1
        )
        assert info == 0, info

    def eigenvalues(self) -> Floats:
        """Return (N,) all of them, the largest first."""
        if self.size < 2:
            return self._diagonal
        values, info = lapack.dsterf(self._diagonal, self._beside)
        assert info == 0, info
        return np.asarray(values)[::-1].copy()

    def eigenvectors(self, count: int) -> Floats:
        """Return (N, K) those of the largest K eigenvalues, orthonormal, the largest first."""
        if self.size < 2:
            return np.ones((self.size, count))
        if count * 4 > self.size:
            small = self._all[:, :count]
        else:
            chosen = (self.size - count, self.size - 1)
            small = eigh_tridiagonal(self._diagonal, self._beside, select="i", select_range=chosen)[
                1
            ][:, ::-1]
        return self.from_tridiagonal(small)

    def onto_eigenvectors(self, vectors_NK: Floats) -> Floats:
        """Return V^T X (N, K) for all eigenvectors V, the largest first, and K vectors X; V is not made."""
        if self.size < 2:
            return vectors_NK
        return np.asarray(self._all.T @ self.to_tridiagonal(vectors_NK))

    def to_tridiagonal(self, vectors_NK: Floats) -> Floats:
        """Return Q^T X."""
        return self._reflected(vectors_NK, "T")

    def from_tridiagonal(self, vectors_NK: Floats) -> Floats:
        """Return Q X."""
        return self._reflected(vectors_NK, "N")

    def times(self, vectors_NK: Floats) -> Floats:
        """Return T X."""
        made_NK = np.asarray(self._diagonal[:, None] * vectors_NK)
        made_NK[1:] += self._beside[:, None] * vectors_NK[:-1]
        made_NK[:-1] += self._beside[:, None] * vectors_NK[1:]
        return made_NK

    def shifted(self, value: float) -> Callable[[Floats], Floats]:
        """Return what solves (T - value) Y = X for X (N, K). `Raises:` LinAlgError, where it is singular."""
        *factors, info = lapack.dgttrf(self._beside, self._diagonal - value, self._beside)
        if info:
            raise np.linalg.LinAlgError
        return lambda vectors_NK: np.asarray(lapack.dgttrs(*factors, vectors_NK)[0])

    @cached_property
    def _all(self) -> Floats:
        """(N, N) All eigenvectors of T, the largest first, by divide and conquer."""
        found = eigh_tridiagonal(self._diagonal, self._beside, lapack_driver="stevd")[1]
        return np.asarray(found[:, ::-1])

    def _reflected(self, vectors_NK: Floats, transposed: str) -> Floats:
        """Return Q X, or Q^T X for "T"."""
        made_NK = np.array(vectors_NK, order="F")
        # Reflection i leaves the first i + 1 places alone: below the first row it is one of QR.
        below, _, info = lapack.dormqr(
            "L", transposed, self._reflectors[1:, :-1], self._scales, made_NK[1:],
            64 * max(1, made_NK.shape[1]),
        )  # fmt: skip
        assert info == 0, info
        made_NK[1:] = below
        return made_NK
