"""What a comparison could have seen, and how many seeds it would take to see more."""

import math

from graftlab.statistics.estimates import LEVEL, Estimate

POWER = 0.8
"""How often a difference is found that is called visible (Cohen, 1988)."""
MOST_SEEDS = 10_000
SURE = 40.0
"""Shifts beyond so many edges of the test, and so many standard errors, are found always: noncentral t takes
minutes for them. Half of it, 20 deviations of a normal, has no chance that a float could hold."""


def power(difference: float, error: float, freedom: float, level: float = LEVEL) -> float:
    """Return how often a two-sided t test finds a true difference: noncentral t."""
    from scipy.stats import nct, t

    edge = float(t.ppf((1 + level) / 2, freedom))
    shift = abs(difference) / error
    if shift > SURE * max(1.0, edge):
        return 1.0
    upper = float(nct.sf(edge, freedom, shift))
    lower = float(nct.cdf(-edge, freedom, shift))
    return (0.0 if math.isnan(upper) else upper) + (0.0 if math.isnan(lower) else lower)


def smallest_visible(
    estimate: Estimate, level: float = LEVEL, wanted: float = POWER
) -> float | None:
    """Return the difference that such a comparison finds in `wanted` of all studies.

    None where there is no variance to judge by.
    """
    from scipy.optimize import brentq

    error, freedom = estimate.standard_error, estimate.degrees_of_freedom
    if not error:
        return None
    high = 2.0
    while power(high, 1.0, freedom, level) < wanted:
        high *= 2
    return error * float(
        brentq(lambda shift: power(shift, 1.0, freedom, level) - wanted, 0.0, high)
    )


def with_seeds(estimate: Estimate, seeds: int, asked: int) -> Estimate:
    """Return what an estimate of `seeds` seeds a method would be with `asked` of them."""
    scale = (1 / asked + estimate.overlap) / (1 / seeds + estimate.overlap)
    share = estimate.seed_freedom / (seeds - 1)  # 1 where paired, up to 2 where not
    return estimate._replace(
        seed_variance=estimate.seed_variance * scale, seed_freedom=share * (asked - 1)
    )


def seeds_wanted(
    difference: float, estimate: Estimate, seeds: int, level: float = LEVEL, wanted: float = POWER
) -> int | None:
    """Return the fewest seeds with which a true difference is found in `wanted` of all studies.

    None where no number of seeds is enough: the examples alone leave too much open; or without variance.
    """

    def enough(asked: int) -> bool:
        then = with_seeds(estimate, seeds, asked)
        return power(difference, then.standard_error, then.degrees_of_freedom, level) >= wanted

    if not estimate.seed_variance or seeds < 2 or not difference or not enough(MOST_SEEDS):
        return None
    few, many = 1, MOST_SEEDS  # `few` is not enough, `many` is
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many
