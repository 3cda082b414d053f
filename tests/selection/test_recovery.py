"""Where no layer knows the label, any is chosen; that one that knows is found: `graftlab.testing.scores`."""

import numpy as np
import pytest
from scipy.stats import chisquare

from graftlab import registry
from graftlab.selection import examples, space
from graftlab.selection.scores import Sample

NUM_LAYERS, NUM_EXAMPLES, WIDTH, FOLDS = 4, 48, 16, 3
ONES = np.ones((1, NUM_EXAMPLES))


def found(name, strength, trial, permuted=False):
    """Return by how many layers the one chosen lies behind the informative one, round and round."""
    draws = np.random.default_rng([trial, int(100 * strength), permuted])
    labels = np.arange(NUM_EXAMPLES) % 2
    informative = trial % NUM_LAYERS
    direction = draws.normal(size=WIDTH)
    shown = draws.permutation(labels) if permuted else labels
    scores = []
    for layer in range(NUM_LAYERS):
        signal = strength * np.outer(2 * labels - 1, direction) * (layer == informative)
        states = space.unit_length(draws.normal(size=(NUM_EXAMPLES, WIDTH)) + signal)
        folds = examples.folds(shown, FOLDS, 0)
        # components: all of them, as the space is small; the plugged vectors are those of the layer
        sample = Sample(states, shown, folds, 8, 8, 3, (states,) * FOLDS)
        scores.append(registry.find("scores", name).score(sample, ONES)[0])
    best = np.flatnonzero(np.array(scores) == max(scores))  # of equal accuracies, any
    return (draws.choice(best) - informative) % NUM_LAYERS


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("scores"))
@pytest.mark.parametrize(("strength", "permuted"), [(0.0, False), (2.0, True)])
def test_without_signal_or_under_permuted_labels_every_layer_is_as_likely(name, strength, permuted):
    chosen = [found(name, strength, trial, permuted) for trial in range(80)]
    counts = np.bincount(chosen, minlength=NUM_LAYERS)
    assert chisquare(counts).pvalue > 0.001
