"""How many singular values make up 95 % of the sum of their squares."""

import numpy as np

from graftlab.contracts.analysis import CHANGE, WEIGHT
from graftlab.spectra import Spectrum
from graftlab.spectra.spectrum import first_share

OF = (WEIGHT, CHANGE)


def value(spectrum: Spectrum) -> int | None:
    """Return it."""
    return first_share(np.square(spectrum.values), 0.95)
