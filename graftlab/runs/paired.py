"""Two runs on the same examples: how far apart their scores are, and how far chance may have moved that.

The examples are left out a group at a time, of both runs together, and the difference of the scores is
computed anew (delete-a-group jackknife; Efron & Tibshirani, An Introduction to the Bootstrap, chapter 11). It
is of the examples alone: two seeds of one method may differ by more.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from graftlab.contracts import Prediction
from graftlab.runfile.measures import measure
from graftlab.runs import evaluation
from graftlab.seeds import mix

GROUPS = 50  # t with 49 degrees of freedom is within 3 % of the normal's 1.96
LEVEL = 0.95
INTERVAL = "95 % interval over examples, paired: jackknife by groups, t"
"""What the interval is, for whoever reads it."""


class Gap(NamedTuple):
    """A score of two runs, and their difference."""

    split: str
    metric: str
    first: float | None
    second: float | None
    difference: float | None
    """The second less the first."""
    interval: tuple[float, float] | None
    reason: str | None
    """Why there is no interval."""


Pair = tuple[Sequence[Prediction], Sequence[Prediction]]


def gap(
    split: str, metric: str, scores: tuple[float | None, float | None], pair: Pair | str
) -> Gap:
    """Return the difference of two scores; `pair` are the predictions, or why they cannot be paired."""
    first, second = scores
    if first is None or second is None:
        return Gap(split, metric, first, second, None, None, "a score is undefined")
    difference = second - first
    reason = pair if isinstance(pair, str) else _unscorable(metric)
    found = reason if isinstance(pair, str) or reason else interval(pair, metric, difference)
    if isinstance(found, tuple):
        return Gap(split, metric, first, second, difference, found, None)
    return Gap(split, metric, first, second, difference, None, found)


def _unscorable(metric: str) -> str | None:
    name = metric.rpartition("/")[2]
    if name == evaluation.MEAN:
        return "a mean over tasks"
    if name != "loss" and measure(name).module.READS_INPUTS:
        return "the metric reads inputs, which are not at hand"
    return None


def unlike(first: Sequence[Prediction], second: Sequence[Prediction]) -> str | None:
    """Return why predictions are not of the same examples; None where they are."""
    if len(first) != len(second):
        return f"{len(first)} examples beside {len(second)}"
    if any(
        a["index"] != b["index"] or a["label"] != b["label"]
        for a, b in zip(first, second, strict=True)
    ):
        return "the labels are other ones"
    return None


def interval(pair: Pair, metric: str, difference: float) -> tuple[float, float] | str:
    """Return the ends of the interval, or why there is none."""
    from scipy.stats import t

    size = len(pair[0])
    groups = min(size, GROUPS)
    if groups < 2:
        return "there is one example"
    left = []
    for group in _shuffled(size, groups):
        kept = [row for row in range(size) if row not in group]
        one, two = (_value([rows[row] for row in kept], metric) for rows in pair)
        if one is None or two is None:
            return "the score is undefined without some of the examples"
        left.append(two - one)
    mean = math.fsum(left) / groups
    spread = math.fsum((value - mean) ** 2 for value in left)
    if not spread:
        return "each group of examples says the same"
    error = math.sqrt((groups - 1) / groups * spread)
    half = float(t.ppf((1 + LEVEL) / 2, groups - 1)) * error
    return difference - half, difference + half


def _shuffled(size: int, groups: int) -> list[set[int]]:
    """Return the examples in groups of like size, drawn: files are often sorted by class."""
    import numpy as np

    order = np.random.default_rng(mix(0, "jackknife")).permutation(size).tolist()
    return [set(order[start::groups]) for start in range(groups)]


def _value(rows: Sequence[Prediction], metric: str) -> float | None:
    if metric == "loss":
        return evaluation.mean_loss(rows)
    return evaluation.score(rows, [metric])[metric].value
