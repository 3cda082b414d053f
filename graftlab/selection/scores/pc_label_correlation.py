"""Mean |correlation| with the label of the principal components that have most of it, 0 to 1.

With more than two classes a component counts with the class that it tells best from the rest.
"""

from typing import TYPE_CHECKING

from graftlab.selection.scores import Sample

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


# Shapes: N examples, B rows of weights, C components.


def score(sample: Sample, weights_BN: "Floats") -> "Floats":
    """Return (B,) means over the leading components."""
    import numpy as np

    found_BC = correlations(sample.mapped, sample.labels, weights_BN)
    top: Floats = np.sort(found_BC, axis=1)[:, -sample.top_components :].mean(axis=1)
    return top


def correlations(states_NC: "Floats", labels_N: "Integers", weights_BN: "Floats") -> "Floats":
    """Return (B, C) each component's |weighted correlation| with the class that it tells best."""
    import numpy as np

    share_BN = weights_BN / weights_BN.sum(axis=1, keepdims=True)
    mean_BC = share_BN @ states_NC
    variance_BC = share_BN @ states_NC**2 - mean_BC**2
    best_BC = np.zeros_like(mean_BC)
    for c in range(int(labels_N.max()) + 1):
        own_N = (labels_N == c).astype(np.float64)
        own_B1 = (share_BN @ own_N)[:, None]
        together_BC = share_BN @ (states_NC * own_N[:, None]) - mean_BC * own_B1
        spread_BC = np.sqrt(np.maximum(variance_BC * own_B1 * (1 - own_B1), 1e-300))
        best_BC = np.maximum(best_BC, np.abs(together_BC) / spread_BC)
    return best_BC
