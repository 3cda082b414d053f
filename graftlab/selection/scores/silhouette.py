"""Silhouette: how much nearer an example is to its own class than to the nearest other one, -1 to 1."""

from typing import TYPE_CHECKING

from graftlab.selection.scores import Sample

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats


def score(sample: Sample, weights_BN: "Floats") -> "Floats":
    """Return (B,) mean silhouettes, euclidean, as scikit-learn has them."""
    from sklearn.metrics import silhouette_samples

    found_N = silhouette_samples(sample.projected, sample.labels)
    mean_B: Floats = weights_BN @ found_N / weights_BN.sum(axis=1)
    return mean_B
