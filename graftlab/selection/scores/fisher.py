"""Fisher's ratio: how far apart class means are, over how wide the classes are. 0 and up, no upper bound.

mean over pairs |m_a - m_b|^2 / sum over classes of the mean |x - m_c|^2, as in the source (a sum below,
a mean above, so that more classes score lower; layers of one task are comparable all the same).
"""

from itertools import combinations
from typing import TYPE_CHECKING

from graftlab.selection.scores import Sample

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats

# Shapes: N examples, B rows of weights, K classes, C values of the score space.

FLOOR = 1e-6  # the source's, under the width of the classes


def score(sample: Sample, weights_BN: "Floats") -> "Floats":
    """Return (B,) ratios."""
    import numpy as np

    states_NC, labels_N = sample.projected, sample.labels
    means, widths = [], []
    for c in range(sample.num_classes):
        own_NC, own_BN = states_NC[labels_N == c], weights_BN[:, labels_N == c]
        own_BN = own_BN / own_BN.sum(axis=1, keepdims=True)
        mean_BC = own_BN @ own_NC
        means.append(mean_BC)
        widths.append(own_BN @ (own_NC**2).sum(axis=1) - (mean_BC**2).sum(axis=1))
    apart = [((a - b) ** 2).sum(axis=1) for a, b in combinations(means, 2)]
    ratio: Floats = np.mean(apart, axis=0) / np.maximum(np.sum(widths, axis=0), FLOOR)
    return ratio
