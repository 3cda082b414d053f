"""Two runs on the same examples: which of them is right where they disagree."""

from collections.abc import Sequence
from typing import NamedTuple


class Disagreement(NamedTuple):
    """Examples that one run has right and the other wrong."""

    first_alone: int
    second_alone: int
    p: float
    """Two-sided, exact; it is of these two runs and their examples, not of methods."""


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Disagreement:
    """Return the exact McNemar test (1947): the binomial test of the examples where two runs disagree."""
    from scipy.stats import binomtest

    pairs = list(zip(first, second, strict=True))
    alone = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    p = float(binomtest(min(alone), sum(alone)).pvalue) if sum(alone) else 1.0
    return Disagreement(*alone, p)
