"""Numerical rank: how many singular values are above max(O, I) eps_float32 times the largest."""

import numpy as np

from graftlab.contracts.analysis import CHANGE, WEIGHT
from graftlab.spectra import Spectrum

OF = (WEIGHT, CHANGE)


def value(spectrum: Spectrum) -> int | None:
    """Return it."""
    floor = max(spectrum.shape) * np.finfo(np.float32).eps * spectrum.largest
    return int((spectrum.values > floor).sum())
