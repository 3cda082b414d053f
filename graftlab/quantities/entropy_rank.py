"""Effective rank: exp of the entropy of the singular values as shares (Roy and Vetterli 2007)."""

import numpy as np

from graftlab.contracts.analysis import CHANGE, WEIGHT
from graftlab.spectra import Spectrum

OF = (WEIGHT, CHANGE)


def value(spectrum: Spectrum) -> float | None:
    """Return it."""
    if not spectrum.largest:
        return None
    shares = spectrum.values[spectrum.values > 0] / spectrum.values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
