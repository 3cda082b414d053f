"""A difference with its uncertainty, as Student's t judges it."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Of intervals, unless another is asked for."""
ROUNDING = 1e-12  # of scores, relative to the largest: deviations below it are none


def variance(scores: NDArray[np.float64], scale: float | None = None) -> float:
    """Return the variance (n - 1) of scores; 0 where they differ by rounding alone.

    `scale` is the size of what they were computed from; their own unless given.
    """
    found = float(scores.var(ddof=1))
    size = float(np.abs(scores).max()) if scale is None else scale
    return found if found > (ROUNDING * size) ** 2 else 0.0


class Estimate(NamedTuple):
    """A difference of two means, and the variance of that difference by where it comes from."""

    value: float
    seed_variance: float
    """What falls as 1 / seeds + `overlap`."""
    seed_freedom: float
    """Degrees of freedom behind `seed_variance`; 0 where seeds are not samples."""
    example_variance: float = 0.0
    """What stays however many seeds there are: falls as 1 / examples."""
    example_freedom: float = 0.0
    overlap: float = 0.0
    """Rows scored per row trained on, where each seed draws both from the same rows."""

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.seed_variance + self.example_variance)

    @property
    def degrees_of_freedom(self) -> float:
        """Of the sum of both variances (Satterthwaite, 1946, equation 17); 0 where there is no variance."""
        parts = (
            (self.seed_variance, self.seed_freedom),
            (self.example_variance, self.example_freedom),
        )
        spread = sum(part * part / freedom for part, freedom in parts if part)
        whole = self.seed_variance + self.example_variance
        return whole * whole / spread if spread else 0.0

    @property
    def p(self) -> float | None:
        """Two-sided p-value of no difference; None where there is no variance to judge by."""
        from scipy.special import stdtr

        if not self.standard_error:
            return None
        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.value) / self.standard_error))

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Return the ends of the interval; None where there is no variance to judge by."""
        from scipy.special import stdtrit

        if not self.standard_error:
            return None
        half = float(stdtrit(self.degrees_of_freedom, (1 + level) / 2)) * self.standard_error
        return self.value - half, self.value + half
