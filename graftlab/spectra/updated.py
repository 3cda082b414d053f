"""A symmetric matrix that was reduced, plus a change of low rank: all eigenvalues, and the largest's vectors.

G = Q T Q^T becomes Q (T + Z J Z^T) Q^T. The eigenvalues are found by themselves: the sum need not be reduced
to where vectors could be read off, half of the work where the library does it in two stages. The vectors come
by inverse iteration with T alone and the Woodbury identity (Golub and Van Loan, Matrix Computations, 2.1.4,
8.2.2), in time that grows as N.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graftlab.spectra.tridiagonal import Tridiagonal

Floats = NDArray[np.float64]

# Shapes: N rows and columns of the matrix, K eigenvectors, R rank of X and Y.

STEPS = 2
"""Of inverse iteration: a value that is exact to rounding needs one, and a start that lies badly a second."""
TRIES = 3
"""Shifts by rounding, where the first is an eigenvalue to the last bit and nothing can be solved."""


class Updated:
    """G (N, N) = G_0 + X Y^T + Y X^T, of which `start` is G_0. What is not found so `anew` has to find."""

    def __init__(
        self,
        gram_NN: Floats,
        start: Tridiagonal,
        x_NR: Floats,
        y_NR: Floats,
        anew: Callable[[], Tridiagonal],
    ) -> None:
        """`gram_NN` is G, of which the lower triangle is read."""
        import torch

        self.size = start.size
        self._start, self._anew = start, anew
        self._both = (x_NR, y_NR)
        self._values = torch.linalg.eigvalsh(torch.from_numpy(gram_NN.T), UPLO="U").numpy()[::-1]

    def eigenvalues(self) -> Floats:
        """Return (N,) all of them, the largest first."""
        return self._values.copy()

    def eigenvectors(self, count: int) -> Floats:
        """Return (N, K) those of the largest K eigenvalues, orthonormal, the largest first."""
        found = self._iterated(count) if count * 4 <= self.size else None
        return self._reduced.eigenvectors(count) if found is None else found

    def onto_eigenvectors(self, vectors_NK: Floats) -> Floats:
        """Return V^T X (N, K) for all eigenvectors V, the largest first, and K vectors X."""
        return self._reduced.onto_eigenvectors(vectors_NK)

    @cached_property
    def _reduced(self) -> Tridiagonal:
        return self._anew()

    def _iterated(self, count: int) -> Floats | None:
        """Return the first eigenvectors; None where they are not exact to rounding."""
        x_NR, y_NR = (self._start.to_tridiagonal(part) for part in self._both)
        z_N2R, jz_N2R = np.hstack([x_NR, y_NR]), np.hstack([y_NR, x_NR])
        draws = np.random.default_rng(0)
        values_K = self._values[:count]
        with np.errstate(all="ignore"):  # what comes of it is looked at below
            rough = [
                self._nearest(value, z_N2R, draws.standard_normal(self.size)) for value in values_K
            ]
        if not all(vector is not None and np.isfinite(vector).all() for vector in rough):
            return None
        # Of equal values each has found some vector of their space: they are made orthonormal, and turned.
        basis_NK = np.linalg.qr(np.array(rough).T)[0]
        onto_NK = self._start.times(basis_NK) + jz_N2R @ (z_N2R.T @ basis_NK)
        _, turned = np.linalg.eigh(basis_NK.T @ onto_NK)
        basis_NK, onto_NK = basis_NK @ turned[:, ::-1], onto_NK @ turned[:, ::-1]
        off = np.abs(onto_NK - basis_NK * values_K).max(initial=0.0)
        close = off <= self.size * np.finfo(float).eps * abs(self._values[0])
        return self._start.from_tridiagonal(basis_NK) if close else None

    def _nearest(self, value: float, z_N2R: Floats, vector_N: Floats) -> Floats | None:
        """Return the eigenvector of T + Z J Z^T nearest to a value; None where that is not found."""
        beside = 4 * np.finfo(float).eps * np.abs(self._values).max()
        for shift in value + beside * np.arange(TRIES):
            try:
                return self._near(float(shift), z_N2R, vector_N)
            except np.linalg.LinAlgError:
                continue
        return None

    def _near(self, shift: float, z_N2R: Floats, vector_N: Floats) -> Floats:
        solved = self._start.shifted(shift)
        rank = z_N2R.shape[1] // 2
        there_N2R = solved(z_N2R)
        core = z_N2R.T @ there_N2R
        core[:rank, rank:] += np.eye(rank)
        core[rank:, :rank] += np.eye(rank)
        for _ in range(STEPS):
            back_N = solved(vector_N[:, None])[:, 0]
            vector_N = back_N - there_N2R @ np.linalg.solve(core, z_N2R.T @ back_N)
            vector_N = vector_N / np.linalg.norm(vector_N)
        return vector_N
