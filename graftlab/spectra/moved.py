"""One weight before and after training, and its change: what numbers of both are computed from."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graftlab.spectra.null import random_change
from graftlab.spectra.spectrum import (
    Spectrum,
    gram,
    known,
    of,
    of_factors,
    of_reduced,
    of_sum,
    reduced,
)

if TYPE_CHECKING:
    from graftlab.spectra.tridiagonal import Tridiagonal

Floats = NDArray[np.float64]
ROUNDING = 1e-9  # of a sum of squared cosines

# Shapes: O and I rows and columns of the weight, R rank, K singular vectors that are compared.


class Arrays(Protocol):
    """Arrays of earlier calls, by a hash of what they were computed from."""

    def arrays(self, key: str) -> dict[str, NDArray[np.float64]] | None:
        """Return what was kept there; None where nothing was."""
        ...

    def put_arrays(self, key: str, values: dict[str, NDArray[np.float64]]) -> None:
        """Keep arrays, whole or not at all."""
        ...


class Delta:
    """A change: left (O, R) @ right (R, I), or `left` (O, I) alone."""

    def __init__(self, left: Floats, right: Floats | None) -> None:
        self.left, self.right = left, right

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], (self.left if self.right is None else self.right).shape[1]

    @property
    def rank(self) -> int | None:
        """Columns of the factors; None where the change is whole."""
        return None if self.right is None else self.left.shape[1]

    @property
    def finite(self) -> bool:
        return all(bool(np.isfinite(part).all()) for part in self._parts)

    @cached_property
    def digest(self) -> str:
        """Hash of its numbers."""
        return hashlib.sha256(b"".join(digest(part).encode() for part in self._parts)).hexdigest()

    @property
    def _parts(self) -> list[Floats]:
        return [self.left] if self.right is None else [self.left, self.right]

    @cached_property
    def spectrum(self) -> Spectrum:
        return of(self.left) if self.right is None else of_factors(self.left, self.right)

    def whole(self) -> Floats:
        """Return it as one matrix (O, I)."""
        return self.left if self.right is None else self.left @ self.right

    def random(self, draws: np.random.Generator) -> "Delta":
        """Return a random change of the same rank and Frobenius norm."""
        norm = self.spectrum.frobenius
        return Delta(*random_change(self.shape, self.rank, norm, draws))


class Before:
    """A weight (O, I) as it was before training."""

    def __init__(self, matrix: Floats, kept: Arrays | None = None) -> None:
        self.matrix, self._kept = matrix, kept

    @cached_property
    def digest(self) -> str:
        """Hash of its numbers."""
        return digest(self.matrix)

    @cached_property
    def finite(self) -> bool:
        return bool(np.isfinite(self.matrix).all())

    @cached_property
    def gram(self) -> Floats:
        """(N, N) Its Gram matrix, as `spectrum.gram` has it: that of each changed weight begins with it."""
        return gram(self.matrix)

    @cached_property
    def reduced(self) -> "Tridiagonal":
        """What it becomes, once: those of weights that were changed a little begin with it too."""
        return reduced(self.gram.copy(order="F"))

    def spectrum(self, top: int) -> Spectrum:
        """Return its spectrum, found on disk where it has been computed with so many vectors before."""
        if self._computed is not None:
            return self._computed
        key = f"{self.digest}-{top}-{code()}"
        found = self._kept.arrays(key) if self._kept else None
        if found is not None:
            return known(self.matrix, found["values"], found["left"], found["right"], self._compute)
        computed = self._compute()
        if self._kept:
            vectors = {"left": computed.left(top), "right": computed.right(top)}
            self._kept.put_arrays(key, {"values": computed.values, **vectors})
        return computed

    _computed: Spectrum | None = None

    def _compute(self) -> Spectrum:
        self._computed = of_reduced(self.matrix, self.reduced)
        return self._computed


class Moved:
    """A weight that was changed, with the weight before. All is computed when it is asked for."""

    def __init__(self, before: Before, delta: Delta, asked: Any) -> None:
        """`asked` is a `graftlab.contracts.Asked`: its `top`, `full` and `epsilon` count here."""
        self.start, self.delta = before, delta
        self.top: int = asked.top
        """K, at most."""
        self.full: bool = asked.full
        """Whether similarities go over all singular vectors."""
        self.epsilon: float = asked.epsilon
        """Largest cosine with every vector from before at which a direction is an intruder."""

    @property
    def rank(self) -> int | None:
        """Of the adapter that makes up the change; None where it is whole."""
        return self.delta.rank

    @property
    def change(self) -> Spectrum:
        """Of the change."""
        return self.delta.spectrum

    @cached_property
    def before(self) -> Spectrum:
        """Of the weight W0 before."""
        return self.start.spectrum(min(self.top, min(self.delta.shape)))

    @cached_property
    def weight(self) -> Spectrum:
        """Of W0 plus the change."""
        left, right = self.delta.left, self.delta.right
        if right is None or 4 * left.shape[1] > min(self.delta.shape):
            return of(self.start.matrix + self.delta.whole())
        scale = max(self.before.largest, self.change.largest)
        start = self.start
        return of_sum(start.matrix, start.gram, lambda: start.reduced, left, right, scale)

    def within(self, left_OK: Floats, right_IK: Floats) -> Floats:
        """Return left^T W0 right (K, K)."""
        return np.asarray(left_OK.T @ self.start.matrix @ right_IK)

    @property
    def compared(self) -> int:
        """How many singular vectors a similarity goes over."""
        return self.weight.size if self.full else min(self.top, self.weight.size)

    def left_spaces(self) -> tuple[Floats, Floats]:
        """Return the top left singular vectors before and now: as many of both as both have."""
        count = min(self.top, self.weight.size)
        before, after = self.before.left(count), self.weight.left(count)
        count = min(before.shape[1], after.shape[1])
        return before[:, :count], after[:, :count]

    @cached_property
    def intruders(self) -> NDArray[np.bool_]:
        """(K,) Which of the top left singular vectors are far from all from before.

        Source: Shuttleworth et al. (2025), LoRA vs Full Fine-tuning, algorithm 1.
        """
        tuned_OK = self.weight.left(min(self.top, self.weight.size))
        cosines = self.before.left(min(self.top, self.before.size)).T @ tuned_OK
        nearest_K = np.abs(cosines).max(axis=0, initial=0.0)
        # Squared cosines sum up to 1 at most: where the first few leave less than epsilon, none of the others
        # can be nearer, and where one is near, no other need be.
        left_over = 1 - np.square(cosines).sum(axis=0)
        open_K = (nearest_K < self.epsilon) & (left_over > self.epsilon**2 - ROUNDING)
        if open_K.any():
            every = self.before.onto_left(tuned_OK[:, open_K])
            nearest_K[open_K] = np.abs(every).max(axis=0, initial=0.0)
        return np.asarray(nearest_K < self.epsilon)


def digest(matrix: Floats) -> str:
    """Return the hash of a matrix's shape and numbers."""
    told = hashlib.sha256(str(matrix.shape).encode())
    told.update(np.ascontiguousarray(matrix).data)
    return told.hexdigest()


def cosine(one: Delta, other: Delta) -> float | None:
    """Return the cosine of two changes as vectors, without making either whole where both have factors; None
    where one of them is nothing."""
    size = one.spectrum.frobenius * other.spectrum.frobenius
    if not size:
        return None
    if one.right is None or other.right is None:
        inner = float(np.einsum("ij,ij->", one.whole(), other.whole()))
    else:
        inner = float(np.einsum("ij,ij->", one.left.T @ other.left, one.right @ other.right.T))
    return max(-1.0, min(1.0, inner / size))


def code(folder: Path = Path(__file__).parent) -> str:
    """Return a hash of a folder's modules, this one's unless given: what other code has kept is not taken."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
