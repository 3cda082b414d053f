"""Singular values and vectors of weights and of their changes, exact and without more work than they need."""

from graftlab.spectra.moved import Before, Delta, Moved
from graftlab.spectra.spectrum import Spectrum, of, of_factors

__all__ = ["Before", "Delta", "Moved", "Spectrum", "of", "of_factors"]
