"""Share of the weight's squared Frobenius norm that lies in its intruder dimensions."""

import numpy as np

from graftlab.contracts.analysis import MOVE
from graftlab.spectra.moved import Moved

OF = (MOVE,)


def value(moved: Moved) -> float | None:
    """Return it."""
    values = moved.weight.values[: len(moved.intruders)]
    if not moved.weight.frobenius:
        return None
    return float(np.square(values[moved.intruders]).sum()) / moved.weight.frobenius**2
