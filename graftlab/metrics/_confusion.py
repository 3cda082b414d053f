"""Delete-one jackknife of metrics that see only a confusion matrix's diagonal and margins.

Examples of one cell leave the same metric behind, so the exact jackknife costs as many values as
there are cells, however many examples (Efron & Tibshirani, An Introduction to the Bootstrap,
eq. 11.5).
"""

# Shapes: N examples, C classes, K confusion matrices (or none of that axis).

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from graftlab.metrics import Predictions, Score, pairs

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


class Margins(NamedTuple):
    """What of a confusion matrix the metrics need."""

    right: "Floats"
    """(K, C) examples of the class that are predicted right."""
    true: "Floats"
    """(K, C) examples of the class."""
    predicted: "Floats"
    """(K, C) examples predicted to be of the class."""


Statistic = Callable[[Margins], "Floats"]
"""From margins to one value per matrix, NaN where it is not defined."""


def accuracy(margins: Margins) -> "Floats":
    """Return the share that is right."""
    return margins.right.sum(-1) / margins.true.sum(-1)


def f1(margins: Margins) -> "Floats":
    """Return (K, C) F1 of each class: 2 right / (true + predicted)."""
    return 2 * margins.right / (margins.true + margins.predicted)


def standard_error(values: "Floats", counts: "Floats | Integers") -> float | None:
    """Return the jackknife's standard error: `values` without one example, each `counts` times."""
    num_examples = counts.sum()
    spread = counts @ (values - counts @ values / num_examples) ** 2
    error = math.sqrt((num_examples - 1) / num_examples * spread)
    return error if math.isfinite(error) else None


def scored(
    predictions: Predictions,
    statistic: Statistic,
    undefined: str,
) -> Score:
    """Return `statistic` of the confusion matrix, with its jackknife.

    The closed forms stand here because the jackknife needs them. scikit-learn, which the tests compare
    them with, would cost each run 100 MiB and three seconds at its first evaluation.
    """
    import numpy as np

    labels, predicted = pairs(predictions)
    if not labels:
        return Score(None, None, "no examples")
    true_N, guess_N = np.array(labels), np.array(predicted)
    num_classes = max(2, true_N.max() + 1, guess_N.max() + 1)
    cells, counts = np.unique(true_N * num_classes + guess_N, return_counts=True)
    true_K, guess_K = divmod(cells, num_classes)
    one_CC = np.eye(num_classes)
    removed = Margins(
        one_CC[true_K] * (true_K == guess_K)[:, None], one_CC[true_K], one_CC[guess_K]
    )
    whole = [counts @ part for part in removed]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(Margins(*whole)))
        if math.isnan(value):
            return Score(None, None, undefined)
        left = Margins(*(all_C - part_KC for all_C, part_KC in zip(whole, removed, strict=True)))
        error = standard_error(statistic(left), counts)
    reason = None if error is not None else "no standard error: it hangs on a single example"
    return Score(value, error, reason)
