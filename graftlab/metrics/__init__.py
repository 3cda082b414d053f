"""Metrics of whole prediction sets: one module a metric, as `graftlab.contracts.Metric` has it.

Names for some of the settings of a metric stand in `catalogue/MODULE.yaml`.

A metric that is not defined for the predictions at hand (one class only, constant predictions, no
examples) has no value and says why; it never turns into a 0 that a mean would count.
"""

import numbers
from collections.abc import Sequence
from typing import Any

from graftlab.contracts import Prediction, Score
from graftlab.errors import DataError

__all__ = ["Predictions", "Score", "pairs"]

Predictions = Sequence[Prediction]
"""One mapping per example, with at least `label` and `prediction`."""


def pairs(predictions: Predictions) -> tuple[list[Any], list[Any]]:
    """Return the labels and the predictions, in order.

    Raises:
        DataError: an example has no label: it can be predicted, never scored.
    """
    labels = [row["label"] for row in predictions]
    for position, label in enumerate(labels):
        if label is None or label != label or (isinstance(label, numbers.Integral) and label < 0):
            raise DataError(
                f"example {predictions[position].get('index', position)} has no label ({label!r}), "
                f"so its split can be predicted but not scored. Name a split with labels."
            )
    return labels, [row["prediction"] for row in predictions]
