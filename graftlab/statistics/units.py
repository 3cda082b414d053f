"""A score as a mean of units that can be samples: groups of examples, taken apart by the jackknife."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

# Shapes: N examples, G groups of them.

Floats = NDArray[np.float64]
Group = NDArray[np.int64]
GROUPS = 50
"""t with 49 degrees of freedom is within 3 % of the normal's 1.96."""


def groups(
    size: int, seed: int, sources: Sequence[Hashable] | None = None, count: int = GROUPS
) -> list[Group]:
    """Return the examples in `count` groups of like size, or as many as there are examples.

    They are drawn, for files are often sorted by class. Examples that share a source stand in one group, so
    that the variance over groups is the clustered one (Miller, 2024, arXiv 2411.00640, section 2.2).

    Raises:
        ValueError: not one source an example.
    """
    if sources is not None and len(sources) != size:
        raise ValueError(f"{len(sources)} sources of {size} examples")
    numbers = {source: n for n, source in enumerate(dict.fromkeys(sources or range(size)))}
    order = np.random.default_rng(seed).permutation(len(numbers))
    group_of = np.empty(len(numbers), np.int64)
    group_of[order] = np.arange(len(numbers)) % min(count, max(len(numbers), 1))
    own_N = group_of[[numbers[source] for source in (sources or range(size))]]
    return [np.flatnonzero(own_N == number) for number in range(min(count, len(numbers)))]


def pseudo_values(
    score: Callable[[Sequence[int]], float | None], parts: Sequence[Group]
) -> Floats | None:
    """Return (G,) units whose mean stands for the score T of all examples.

    T + (G / N) (N - n_g) (T - T without g), of groups of one size G T - (G - 1) T without g. Of a mean it is
    exact: groups of one size give their means, others what Liang & Zeger's clustered variance (1986) is
    made of, with its factor G / (G - 1). `score` returns the score of some examples; None is returned where
    that is undefined without one of the groups.

    Source: Tukey (1958); Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    count, size = len(parts), sum(map(len, parts))
    every = np.arange(size)
    whole = score(every.tolist())
    left = [score(np.setdiff1d(every, part, assume_unique=True).tolist()) for part in parts]
    known = [value for value in left if value is not None]
    if whole is None or count < 2 or len(known) < count:
        return None
    rest_G = size - np.array([len(part) for part in parts])
    return whole + count / size * rest_G * (whole - np.array(known))
