"""p-values of several comparisons at once."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for all of them together: the chance of any false alarm.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, float)[order] * (count - np.arange(count))
    found = np.empty(count)
    found[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in found]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values for the share of false alarms among what is called a difference.

    Source: Benjamini & Hochberg (1995), Controlling the false discovery rate.
    """
    from scipy.stats import false_discovery_control

    return [float(v) for v in false_discovery_control(p_values)] if len(p_values) else []
