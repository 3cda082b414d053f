"""Two runs on the same examples: how far apart their scores are, and how far chance may have moved that.

The examples are left out a group at a time, of both runs together, and the difference of the scores is
computed anew (delete-a-group jackknife; Efron & Tibshirani, An Introduction to the Bootstrap, chapter 11). It
is of the examples alone: two seeds of one method may differ by more.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts import Prediction
from graftlab.errors import ModelError
from graftlab.runfile.measures import measure
from graftlab.runs import evaluation
from graftlab.seeds import mix
from graftlab.statistics import components, units
from graftlab.statistics.estimates import LEVEL

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
    reason = pair if isinstance(pair, str) else unscorable(metric)
    found = reason if isinstance(pair, str) or reason else interval(pair, metric, difference)
    if isinstance(found, tuple):
        return Gap(split, metric, first, second, difference, found, None)
    return Gap(split, metric, first, second, difference, None, found)


def unscorable(metric: str) -> str | None:
    """Return why the predictions of some examples alone say nothing of a metric; None where they do."""
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

    def gap_of(kept: Sequence[int]) -> float | None:
        one, two = (value([rows[row] for row in kept], metric) for rows in pair)
        return None if one is None or two is None else two - one

    found = jackknife(gap_of, pair[0])
    if isinstance(found, str):
        return found
    estimate = components.of_examples(found, np.zeros(len(found)))
    ends = estimate._replace(value=difference).interval(LEVEL)
    return "each group of examples says the same" if ends is None else ends


def jackknife(
    score: Callable[[Sequence[int]], float | None], rows: Sequence[Prediction]
) -> NDArray[np.float64] | str:
    """Return units whose mean stands for the score of all rows, or why there are none.

    `score` returns that of some rows, by their places.
    """
    if len(rows) < 2:
        return "there are fewer than two examples"
    parts = units.groups(len(rows), mix(0, "jackknife"), sources(rows))
    if len(parts) < 2:
        return "all examples share one source"
    try:
        found = units.pseudo_values(score, parts)
    except (
        ModuleNotFoundError,
        ModelError,
    ) as error:  # what the metric wants was there when it ran
        return f"the metric cannot be computed here: {error}"
    if found is None or not np.isfinite(found).all():
        return "the score is undefined without some of the examples"
    return found


def sources(rows: Sequence[Prediction]) -> list[Hashable] | None:
    """Return which source each example has; None unless all have one."""
    known = [row.get("source") for row in rows]
    return None if None in known else known


def value(rows: Sequence[Prediction], metric: str) -> float | None:
    """Return the score of some of a split's predictions; None where it is undefined."""
    if metric == "loss":
        return evaluation.mean_loss(rows)
    return evaluation.score(rows, [metric])[metric].value
