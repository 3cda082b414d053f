"""The difference of two means over the same examples, some of which share a source.

With one example a source, each of weight 1, it is the paired t.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Shapes: N examples, K of them that have a value, G sources of these.

LEVEL = 0.95
ROUNDING = 1e-12  # of values, relative to the largest: deviations below it are none


class Totals(NamedTuple):
    """A mean of each example's sum over its weight: of a metric one value of weight 1, of a loss that of all
    trained tokens and their number. Where an example has no value, both are 0."""

    sums: NDArray[np.float64]  # (N,)
    weights: NDArray[np.float64]  # (N,)

    @property
    def mean(self) -> float | None:
        """All sums over all weights; None where there is no weight."""
        weight = math.fsum(self.weights)
        return math.fsum(self.sums) / weight if weight else None


class Difference(NamedTuple):
    """A difference of two means."""

    value: float
    interval: tuple[float, float] | None
    """At `LEVEL`; None where there is one source, or no variance to judge by."""


def difference(
    first: Totals, second: Totals, sources: Sequence[Hashable], level: float = LEVEL
) -> Difference | None:
    """Return the first mean less the second; None where one of them is undefined.

    The variance is that of sums over sources, linearized where weights are not equal: with means r_k and
    W_k = sum of weights, u_g = sum over g of (s_1 - r_1 w_1) / W_1 - (s_2 - r_2 w_2) / W_2, and
    G / (G - 1) sum u_g^2, judged by t with G - 1 degrees of freedom (Liang & Zeger, 1986, Biometrika 73;
    Miller, 2024, arXiv 2411.00640, section 2.2).
    """
    one, other = first.mean, second.mean
    if one is None or other is None:
        return None
    assert len(sources) == len(first.sums) == len(second.sums)
    known_K = np.flatnonzero((first.weights > 0) | (second.weights > 0))
    numbers: dict[Hashable, int] = {}
    group_K = [numbers.setdefault(sources[place], len(numbers)) for place in known_K.tolist()]
    parts_N = _parts(first, one) - _parts(second, other)
    sums_G = np.bincount(group_K, parts_N[known_K])
    value, count = one - other, len(numbers)
    scale = max(np.abs(first.sums).max(), np.abs(second.sums).max()) / len(sources)
    if count < 2 or np.abs(sums_G).max() <= ROUNDING * scale:
        return Difference(value, None)
    from scipy.special import stdtrit

    error = math.sqrt(count / (count - 1) * math.fsum(sums_G * sums_G))
    half = float(stdtrit(count - 1, (1 + level) / 2)) * error
    return Difference(value, (value - half, value + half))


def _parts(totals: Totals, mean: float) -> NDArray[np.float64]:
    """Return by how much each example (N,) moves the mean."""
    parts_N: NDArray[np.float64] = (totals.sums - mean * totals.weights) / totals.weights.sum()
    return parts_N
