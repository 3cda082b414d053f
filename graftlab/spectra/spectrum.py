"""The singular values of a matrix, and those of its singular vectors that are asked for.

Of a whole matrix by its Gram matrix in float64, tridiagonal once: some seven times as fast as a full
decomposition, with singular values exact to eps (s_1 / s_i)^2 relative. Where that does not suffice the few
small ones are found by themselves, or the matrix is decomposed in full, and `route` says so. Of a product of
low rank by the QR decompositions of its factors: no matrix of the product's own size is made.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graftlab.spectra.smallest import smallest

if TYPE_CHECKING:
    from graftlab.spectra.tridiagonal import Tridiagonal
    from graftlab.spectra.updated import Updated

    Reduced = Tridiagonal | Updated

Floats = NDArray[np.float64]

# Shapes: O and I rows and columns of the matrix, N the smaller of both, R rank, K singular vectors.

GRAM, FACTORS, FULL, KNOWN = "gram", "factors", "full", "known"
SMALLEST, LEAST = 1e-5, 1e-6
"""A singular value over the largest, below which a Gram matrix is not trusted: there its error is some 2e-6
of the value. A few such values are found by themselves; below the second their vectors are too coarse too."""
LARGE, RANKS = 1024, 16
"""N from which on, and N over the rank down to which, a changed Gram matrix is not reduced again."""


class Spectrum(ABC):
    """Singular values and vectors of one matrix (O, I)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.route = FULL
        self.values: Floats = np.zeros(min(shape))
        """(N,) all singular values, the largest first."""

    @property
    def size(self) -> int:
        """How many singular values there are: N."""
        return min(self.shape)

    @cached_property
    def frobenius(self) -> float:
        """The root of the sum of squares."""
        return float(np.linalg.norm(self.values))

    @property
    def largest(self) -> float:
        """The spectral norm."""
        return float(self.values[0]) if len(self.values) else 0.0

    @abstractmethod
    def left(self, count: int) -> Floats:
        """Return (O, K) the first left singular vectors: as many as have values above rounding, at most."""

    @abstractmethod
    def right(self, count: int) -> Floats:
        """Return (I, K) the first right singular vectors, with the same limit."""

    def onto_left(self, vectors_OK: Floats) -> Floats:
        """Return U^T X (N, K) for all left singular vectors U that are not rounding, and K vectors X."""
        return np.asarray(self.left(self.size).T @ vectors_OK)

    def defined(self, count: int) -> int:
        """Return how many of the first `count` singular vectors there are: those with a value that is not
        rounding."""
        floor = max(self.shape) * np.finfo(np.float64).eps * self.largest
        return min(count, int((self.values > floor).sum()))


class _Whole(Spectrum):
    """Of a matrix that is given whole."""

    def __init__(self, matrix: Floats, reduced: "Reduced", scale: float = 0.0) -> None:
        """`reduced` is what became of its Gram matrix; `scale` the size of what that was added up of."""
        super().__init__((matrix.shape[0], matrix.shape[1]))
        self._matrix = matrix
        self._wide = matrix.shape[0] < matrix.shape[1]
        self._reduced = reduced
        values = np.sqrt(np.maximum(self._reduced.eigenvalues(), 0.0))
        self.route = GRAM
        scale = max(float(values[0]), scale)
        if coarse := int((values < SMALLEST * scale).sum()) if values[0] > 0 else 0:
            found = smallest(self._tall, coarse)
            if found is not None and found[-1] >= LEAST * scale:
                values[-coarse:] = found
            else:
                self.route = FULL
                values = np.linalg.svd(matrix, compute_uv=False)
        self.values = values

    @property
    def _tall(self) -> Floats:
        return self._matrix.T if self._wide else self._matrix

    @cached_property
    def _vectors(self) -> dict[int, tuple[Floats, Floats]]:
        return {}

    def _pair(self, count: int) -> tuple[Floats, Floats]:
        """Return the first vectors of the longer and of the shorter side."""
        count = self.defined(count)
        if count not in self._vectors:
            self._vectors[count] = self._decompose(count)
        return self._vectors[count]

    def _decompose(self, count: int) -> tuple[Floats, Floats]:
        if self.route == FULL and count and self.values[count - 1] < SMALLEST * self.values[0]:
            left, _, right = np.linalg.svd(self._tall, full_matrices=False)
            return left[:, :count], right[:count].T
        short_NK = self._reduced.eigenvectors(count) if count else np.zeros((self.size, 0))
        return (self._tall @ short_NK) / self.values[:count], short_NK

    def left(self, count: int) -> Floats:
        return self._pair(count)[1 if self._wide else 0]

    def right(self, count: int) -> Floats:
        return self._pair(count)[0 if self._wide else 1]

    def onto_left(self, vectors_OK: Floats) -> Floats:
        if self.route == FULL:
            return super().onto_left(vectors_OK)
        if self._wide:
            return self._reduced.onto_eigenvectors(vectors_OK)
        onto_NK = self._reduced.onto_eigenvectors(self._matrix.T @ vectors_OK)
        return np.asarray(onto_NK / self.values[:, None])


class _Product(Spectrum):
    """Of left (O, R) @ right (R, I), by the R x R core between their orthonormal bases."""

    def __init__(self, left: Floats, right: Floats) -> None:
        super().__init__((left.shape[0], right.shape[1]))
        self.route = FACTORS
        self._rows, upper = np.linalg.qr(left)
        self._columns, lower = np.linalg.qr(right.T)
        self._core_left, values, self._core_right = np.linalg.svd(upper @ lower.T)
        self.values = np.zeros(self.size)
        self.values[: len(values)] = values[: self.size]

    def left(self, count: int) -> Floats:
        return self._rows @ self._core_left[:, : self.defined(count)]

    def right(self, count: int) -> Floats:
        return self._columns @ self._core_right[: self.defined(count)].T


class _Known(Spectrum):
    """Of a matrix whose values and first vectors are known already; for more it is decomposed again."""

    def __init__(
        self,
        matrix: Floats,
        values: Floats,
        left: Floats,
        right: Floats,
        anew: Callable[[], Spectrum],
    ) -> None:
        super().__init__((matrix.shape[0], matrix.shape[1]))
        self._left, self._right, self._anew = left, right, anew
        self.values, self.route = values, KNOWN

    @cached_property
    def _again(self) -> Spectrum:
        return self._anew()

    def onto_left(self, vectors_OK: Floats) -> Floats:
        return self._again.onto_left(vectors_OK)

    def left(self, count: int) -> Floats:
        count = self.defined(count)
        return self._left[:, :count] if count <= self._left.shape[1] else self._again.left(count)

    def right(self, count: int) -> Floats:
        count = self.defined(count)
        return self._right[:, :count] if count <= self._right.shape[1] else self._again.right(count)


def known(
    matrix: Floats, values: Floats, left: Floats, right: Floats, anew: Callable[[], Spectrum]
) -> Spectrum:
    """Return a spectrum of which all singular values and the first vectors, (O, K) and (I, K), are known;
    `anew` finds the rest of it."""
    return _Known(matrix, values, left, right, anew)


def first_share(parts: Floats, share: float) -> int | None:
    """Return how many of the parts, from the first on, make up a share of their sum; None where that is 0."""
    total = float(parts.sum())
    return (
        int(np.searchsorted(np.cumsum(parts), share * total * (1 - 1e-12))) + 1 if total else None
    )


def gram(matrix: Floats) -> Floats:
    """Return (N, N) the Gram matrix W^T W, or W W^T of a wide one: its lower triangle, in Fortran's order."""
    from scipy.linalg.blas import dsyrk

    wide = matrix.shape[0] < matrix.shape[1]
    return np.asarray(dsyrk(1.0, matrix.T, trans=int(wide), lower=1))


def reduced(gram_NN: Floats) -> "Tridiagonal":
    """Return a Gram matrix as a tridiagonal one; it is overwritten."""
    from graftlab.spectra.tridiagonal import Tridiagonal  # imports scipy

    return Tridiagonal(gram_NN)


def of(matrix: ArrayLike) -> Spectrum:
    """Return the spectrum of a matrix (O, I); it is computed in float64."""
    whole = np.asarray(matrix, dtype=np.float64)
    return _Whole(whole, reduced(gram(whole)))


def of_reduced(matrix: Floats, start: "Tridiagonal") -> Spectrum:
    """Return the spectrum of a matrix whose Gram matrix is reduced already."""
    return _Whole(matrix, start)


def of_sum(
    matrix: Floats,
    gram_NN: Floats,
    start: "Callable[[], Tridiagonal]",
    left: Floats,
    right: Floats,
    scale: float,
) -> Spectrum:
    """Return the spectrum of a matrix (O, I) plus left (O, R) @ right (R, I).

    The Gram matrix G of the first is known; it changes by X Y^T + Y X^T of rank 2R: a product of two matrices
    as large as the whole is spared, and of a large one its reduction, by that of G, which is `start`. `scale`
    is the size of the larger of both: what cancels out of it is rounding.
    """
    from scipy.linalg.blas import dsyr2k

    from graftlab.spectra.updated import Updated

    if matrix.shape[0] < matrix.shape[1]:
        x_NR, y_NR = matrix @ right.T + 0.5 * left @ (right @ right.T), left
    else:
        x_NR, y_NR = matrix.T @ left + 0.5 * right.T @ (left.T @ left), right.T
    grown_NN = np.asarray(dsyr2k(1.0, x_NR, y_NR, beta=1.0, c=gram_NN, lower=1))
    whole = matrix + left @ right
    if len(gram_NN) < LARGE or RANKS * left.shape[1] > len(gram_NN):
        return _Whole(whole, reduced(grown_NN), scale)
    anew = partial(_anew, whole)
    return _Whole(whole, Updated(grown_NN, start(), x_NR, y_NR, anew), scale)


def _anew(matrix: Floats) -> "Tridiagonal":
    return reduced(gram(matrix))


def of_factors(left: ArrayLike, right: ArrayLike) -> Spectrum:
    """Return the spectrum of left (O, R) @ right (R, I); it is computed in float64."""
    first, second = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if first.shape[1] >= min(first.shape[0], second.shape[1]):
        return of(first @ second)
    return _Product(first, second)
