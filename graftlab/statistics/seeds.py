"""Scores of seeds: one number a seed, two methods."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftlab.statistics.estimates import Estimate, variance

Floats = NDArray[np.float64]


def paired(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> Estimate:
    """Return first less second where both have the same seeds: Student's paired t, S - 1 degrees of freedom.

    Raises:
        ValueError: fewer than two seeds, or not as many on both sides.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"pairs of two seeds or more are wanted: {len(first)} beside {len(second)}"
        )
    one, two = np.asarray(first, float), np.asarray(second, float)
    gap_S = one - two
    scale = float(np.abs([one, two]).max())
    return Estimate(float(gap_S.mean()), variance(gap_S, scale) / len(gap_S), len(gap_S) - 1)


def unpaired(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> Estimate:
    """Return first less second where seeds have nothing in common: Welch's t (1947).

    Raises:
        ValueError: fewer than two seeds on a side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"two seeds a side are wanted: {len(first)} beside {len(second)}")
    one, two = np.asarray(first, float), np.asarray(second, float)
    parts = [variance(own) / len(own) for own in (one, two)]
    spread = sum(part**2 / (len(own) - 1) for part, own in zip(parts, (one, two), strict=True))
    freedom = sum(parts) ** 2 / spread if spread else 0.0
    return Estimate(float(one.mean() - two.mean()), sum(parts), freedom)
