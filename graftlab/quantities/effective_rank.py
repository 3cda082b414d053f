"""How many singular values are above 1e-5, as the source counts: nearly all of any pretrained weight."""

from graftlab.contracts.analysis import CHANGE, WEIGHT
from graftlab.spectra import Spectrum

OF = (WEIGHT, CHANGE)


def value(spectrum: Spectrum) -> int | None:
    """Return it."""
    return int((spectrum.values > 1e-5).sum())
