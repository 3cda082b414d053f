"""Metrics of the trained tokens: sums over all of them, divided once, and the jackknife over examples."""

# Shapes: N examples.

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from graftlab.errors import DataError
from graftlab.metrics import Predictions, Score
from graftlab.metrics._confusion import standard_error

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats


def scored(predictions: Predictions, column: str, finish: Callable[["Floats"], "Floats"]) -> Score:
    """Return `finish(sum of column / number of trained tokens)`, with its jackknife.

    Examples of which no token is left to score (the answer was cut off) are left out and counted.

    Raises:
        DataError: a prediction does not say how many tokens were trained, or has no label for them.
    """
    import numpy as np

    for place, row in enumerate(predictions):
        if "count" not in row or (row.get(column) is None and row["label"] is None):
            raise DataError(
                f"example {row.get('index', place)} has no label for its tokens ({column!r} "
                f"{row.get(column)!r}, 'count' {row.get('count')!r}). This metric is for tasks that "
                f"train a model to write (kind: generation), on splits with answers."
            )
    if not predictions:
        return Score(None, None, "no examples")
    known = [row for row in predictions if row["count"] and row[column] is not None]
    left_out = len(predictions) - len(known)
    details = (
        {"left_out": left_out, "because": "no token of its answer is left"} if left_out else None
    )
    if not known:
        return Score(None, None, "no token of an answer is left", details)
    sums_N = np.array([row[column] for row in known], dtype=float)
    count_N = np.array([row["count"] for row in known], dtype=float)
    if strange := int((~np.isfinite(sums_N)).sum()):
        return Score(
            None, None, f"the {column} of {strange} of {len(sums_N)} examples is not finite"
        )
    whole, count = math.fsum(sums_N), math.fsum(count_N)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        value = float(finish(np.array(whole / count)))
        if not math.isfinite(value):
            return Score(
                None, None, f"{whole / count:.4g} a token is too large for a float64", details
            )
        left = finish((whole - sums_N) / (count - count_N))
        error = standard_error(left, np.ones(len(sums_N))) if len(sums_N) > 1 else None
    reason = None if error is not None else "no standard error: it hangs on a single example"
    return Score(value, error, reason, details)
