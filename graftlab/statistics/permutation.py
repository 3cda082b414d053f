"""Differences of seeds judged by exchanging methods: exact, and at few seeds never small."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST = 2**16
"""Exchanges that are all tried; of more as many are drawn."""
ROUNDING = 1e-9  # of two sums of the same numbers in another order, relative to the largest


class Exchange(NamedTuple):
    """A permutation test."""

    p: float
    smallest: float
    """The smallest p-value that so many seeds can give: with five pairs 2 / 32."""


def paired(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Exchange:
    """Return how often signs drawn at random make the mean difference as large: the two methods of each seed
    exchanged, two-sided (Fisher, 1935)."""
    gap_S = np.asarray(first, float) - np.asarray(second, float)
    count = len(gap_S)
    if 2**count <= MOST:
        return _judged(_signs(count) @ gap_S, float(gap_S.sum()), 2 / 2**count)
    draws = np.random.default_rng(seed).choice((1.0, -1.0), (MOST - 1, count))
    return _judged(np.append(draws @ gap_S, gap_S.sum()), float(gap_S.sum()), 1 / MOST)


def unpaired(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Exchange:
    """Return how often a random split of all seeds in two gives means as far apart, two-sided."""
    from math import comb

    every = np.array([*first, *second], float)
    count, size = len(every), len(first)
    centred = every - every.mean()
    observed = float(centred[:size].sum())  # all else of the difference of means is fixed by it
    if comb(count, size) <= MOST:
        chosen = _splits(count, size)
        least = (1 + (2 * size == count)) / comb(count, size)
        return _judged(centred[chosen].sum(1), observed, least)
    draws = np.random.default_rng(seed)
    sums = [draws.permutation(centred)[:size].sum() for _ in range(MOST - 1)]
    return _judged(np.array([*sums, observed]), observed, 1 / MOST)


@functools.cache
def _signs(count: int) -> Floats:
    return np.array(list(itertools.product((1.0, -1.0), repeat=count)))


@functools.cache
def _splits(count: int, size: int) -> NDArray[np.int64]:
    return np.array(list(itertools.combinations(range(count), size)))


def _judged(sums: Floats, observed: float, least: float) -> Exchange:
    scale = float(np.abs(sums).max())
    return Exchange(float(np.mean(np.abs(sums) >= abs(observed) - ROUNDING * scale)), least)
