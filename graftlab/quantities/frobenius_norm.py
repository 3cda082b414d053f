"""Root of the sum of squares of all entries."""

from graftlab.contracts.analysis import CHANGE, WEIGHT
from graftlab.spectra import Spectrum

OF = (WEIGHT, CHANGE)
NULL = False


def value(spectrum: Spectrum) -> float | None:
    """Return it."""
    return spectrum.frobenius
