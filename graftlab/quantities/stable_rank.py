"""Squared Frobenius over squared spectral norm: how many directions share the size."""

from graftlab.contracts.analysis import CHANGE, WEIGHT
from graftlab.spectra import Spectrum

OF = (WEIGHT, CHANGE)


def value(spectrum: Spectrum) -> float | None:
    """Return it."""
    return (spectrum.frobenius / spectrum.largest) ** 2 if spectrum.largest else None
