"""Largest over smallest singular value; infinite where that is 1e-10 or less."""

import math

from graftlab.contracts.analysis import WEIGHT
from graftlab.spectra import Spectrum

OF = (WEIGHT,)


def value(spectrum: Spectrum) -> float | None:
    """Return it."""
    smallest = float(spectrum.values[-1])
    return spectrum.largest / smallest if smallest > 1e-10 else math.inf
