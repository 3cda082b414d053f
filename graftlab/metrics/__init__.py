"""Metrics of whole prediction sets: one module a metric, as `graftlab.contracts.Metric` has it.

A metric that is not defined for the predictions at hand (one class only, constant predictions, no
examples) has no value and says why; it never turns into a 0 that a mean would count.
"""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graftlab.errors import DataError

Predictions = Sequence[Mapping[str, Any]]
"""One mapping per example, with at least `label` and `prediction`."""


class Score(NamedTuple):
    """A metric's value and how far chance may have moved it."""

    value: float | None
    """None where the metric is not defined."""
    standard_error: float | None
    """Of sampling the examples; None where it is not defined."""
    reason: str | None
    """Why the value, or else the standard error, is None."""
    details: Mapping[str, Any] | None = None
    """What else there is to say, as JSON: examples left out, how often each rule found an answer."""


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
