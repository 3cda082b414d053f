"""Scores of seeds: one number a seed, two methods.

Seeds that draw what is trained on and what is scored from the same rows are no independent samples. With
`overlap`, rows scored per row trained on, the variance of a mean of S seeds is variance (1 / S + overlap)
(Nadeau & Bengio, Inference for the Generalization Error, Machine Learning 52, 2003, section 3.2).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftlab.statistics.estimates import Estimate, variance

Floats = NDArray[np.float64]
ALIKE = 0.85
"""The quantile of F below which two spreads are taken for alike."""


def paired(
    first: Sequence[float] | Floats, second: Sequence[float] | Floats, overlap: float = 0.0
) -> Estimate:
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
    of_mean = variance(gap_S, scale) * (1 / len(gap_S) + overlap)
    return Estimate(float(gap_S.mean()), of_mean, len(gap_S) - 1, overlap=overlap)


def unpaired(
    first: Sequence[float] | Floats, second: Sequence[float] | Floats, overlap: float = 0.0
) -> Estimate:
    """Return first less second where seeds have nothing in common: Student's t or Welch's, see `freedom`.

    Raises:
        ValueError: fewer than two seeds on a side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"two seeds a side are wanted: {len(first)} beside {len(second)}")
    one, two = np.asarray(first, float), np.asarray(second, float)
    parts = (variance(one) * (1 / len(one) + overlap), variance(two) * (1 / len(two) + overlap))
    found = freedom(parts, (len(one), len(two)))
    return Estimate(float(one.mean() - two.mean()), sum(parts), found, overlap=overlap)


def freedom(parts: tuple[float, float], seeds: tuple[int, int]) -> float:
    """Return the degrees of freedom of the variance of a difference of two means, of which `parts` are each
    mean's; 0 where there is none.

    Welch's (1947), which are careful where spreads are alike (3.5 % false alarms at 5 % of three seeds a
    side). Of as many seeds on either side Student's, the sum of both, where nothing says that spreads are
    unlike: where their ratio is below the 85 % point of F. False alarms are then 4.1 to 6.3 % for any ratio.
    """
    from scipy.special import fdtri

    small, large = sorted(parts)
    if not large:
        return 0.0
    if seeds[0] == seeds[1] and large < small * float(fdtri(seeds[0] - 1, seeds[1] - 1, ALIKE)):
        return float(sum(seeds) - 2)
    spread = sum(part**2 / (count - 1) for part, count in zip(parts, seeds, strict=True))
    return sum(parts) ** 2 / spread
