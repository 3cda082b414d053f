"""Sum of the singular values."""

from graftlab.contracts.analysis import CHANGE, WEIGHT
from graftlab.spectra import Spectrum

OF = (WEIGHT, CHANGE)


def value(spectrum: Spectrum) -> float | None:
    """Return it."""
    return float(spectrum.values.sum())
