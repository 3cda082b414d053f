"""Metrics that are the mean over examples of a figure in 0..1, with the standard error of that mean."""

import math
from collections.abc import Mapping, Sequence

from graftlab.metrics import Score


def mean(values: Sequence[float], details: Mapping[str, object] | None = None) -> Score:
    """Return the mean and its standard error, sqrt(variance / N): a share's where values are 0 and 1."""
    num_examples = len(values)
    if not num_examples:
        return Score(None, None, "no examples", details)
    center = math.fsum(values) / num_examples
    if num_examples == 1:
        return Score(center, None, "no standard error: one example only", details)
    variance = math.fsum((value - center) ** 2 for value in values) / num_examples
    return Score(center, math.sqrt(variance / num_examples), None, details)
