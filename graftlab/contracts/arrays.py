"""Arrays by the kind of number that they hold, for annotations."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""Of float32 or float64."""
Integers = NDArray[np.integer]
"""Of labels, positions and counts."""
