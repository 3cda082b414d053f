"""Seeds and examples as two samples at once: variance components of a difference.

A score d(s, i) of seed s on example i is mean + seed + example + rest, crossed and independent. With mean
squares MS of S seeds and N examples the variance of the mean over both is

    MS_seed / (S N)  +  (MS_example - MS_rest) / (S N)

The first part is that of Student's t over seeds; the second is what the choice of examples adds (Cornfield &
Tukey, 1956; Owen, 2007, arXiv 0710.2622). It is an estimate that may be negative, and counts only where it is
seen: where F = MS_example / MS_rest is beyond the 95 % point of chance. Of a method beside itself it is
nothing, and its noise in the degrees of freedom would take small p-values off their level at few seeds, those
that a correction for many pairs rests on; `bench/false_alarms.py` measures both.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graftlab.statistics.estimates import Estimate, variance
from graftlab.statistics.seeds import freedom

# Shapes: S seeds, N examples or groups of them, of equal weight.

Floats = NDArray[np.float64]
SEEN = 0.95
"""The quantile of F beyond which the examples' part counts; by .75 p-values of .005 come twice as often."""


class MeanSquares(NamedTuple):
    """Of a table of two ways with one value a cell."""

    seed: float
    example: float
    rest: float


def mean_squares(score_SN: Floats) -> MeanSquares:
    """Return the mean squares of the rows, of the columns and of what is left.

    Raises:
        ValueError: fewer than two seeds or examples.
    """
    seeds, examples = score_SN.shape
    if seeds < 2 or examples < 2:
        raise ValueError(f"two seeds and two examples are wanted: {seeds} x {examples}")
    by_seed, by_example = score_SN.mean(1), score_SN.mean(0)
    rest_SN = score_SN - by_seed[:, None] - by_example[None, :] + score_SN.mean()
    scale = float(np.abs(score_SN).max())
    of_rest = variance(rest_SN, scale) * (score_SN.size - 1)  # the mean of the rest is 0
    return MeanSquares(
        variance(by_seed, scale) * examples,
        variance(by_example, scale) * seeds,
        of_rest / ((seeds - 1) * (examples - 1)),
    )


def paired(first_SN: Floats, second_SN: Floats) -> Estimate:
    """Return first less second where both have the same seeds and the same examples."""
    gap_SN = first_SN - second_SN
    seeds, examples = gap_SN.shape
    found, cells = mean_squares(gap_SN), gap_SN.size
    seen = _examples_part(found.example, found.rest, examples - 1, (seeds - 1) * (examples - 1))
    return Estimate(float(gap_SN.mean()), found.seed / cells, seeds - 1, seen / cells, examples - 1)


def unpaired(first_SN: Floats, second_SN: Floats) -> Estimate:
    """Return first less second where both have the same examples, and seeds with nothing in common."""
    examples = first_SN.shape[1]
    one, two = mean_squares(first_SN), mean_squares(second_SN)
    sides = ((one, first_SN), (two, second_SN))
    by_seed = (one.seed / first_SN.size, two.seed / second_SN.size)
    rests = [found.rest / own.size for found, own in sides]
    rest_spread = sum(
        part**2 / ((len(own) - 1) * (examples - 1))
        for part, (_, own) in zip(rests, sides, strict=True)
    )
    gap_N = first_SN.mean(0) - second_SN.mean(0)
    of_examples = variance(gap_N) / examples
    rest_freedom = sum(rests) ** 2 / rest_spread if rest_spread else 1.0
    return Estimate(
        float(gap_N.mean()),
        sum(by_seed),
        freedom(by_seed, (len(first_SN), len(second_SN))),
        _examples_part(of_examples, sum(rests), examples - 1, rest_freedom),
        examples - 1,
    )


def of_examples(first_N: Floats, second_N: Floats) -> Estimate:
    """Return first less second of one run each: examples are the only sample.

    Raises:
        ValueError: fewer than two examples.
    """
    gap_N = first_N - second_N
    if len(gap_N) < 2:
        raise ValueError("two examples are wanted")
    scale = float(np.abs([first_N, second_N]).max())
    spread = variance(gap_N, scale) / len(gap_N)
    return Estimate(float(gap_N.mean()), 0.0, 0.0, spread, len(gap_N) - 1)


def _examples_part(example: float, rest: float, freedom: float, rest_freedom: float) -> float:
    """Return what the examples add beyond the rest, where that is seen; else 0."""
    from scipy.special import fdtri

    return example - rest if example > rest * float(fdtri(freedom, rest_freedom, SEEN)) else 0.0
