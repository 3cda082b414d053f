"""A layer that alone knows the label is found, the more surely the more it knows; else by chance."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from graftlab import registry
from graftlab.selection import examples, space
from graftlab.selection.scores import Sample

NUM_LAYERS, NUM_EXAMPLES, WIDTH, FOLDS = 4, 48, 16, 3
STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
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


def rate(name, strength, trials):
    return np.mean([found(name, strength, trial) == 0 for trial in range(trials)])


@pytest.mark.parametrize("name", registry.names("scores"))
def test_the_informative_layer_is_found_the_more_surely_the_more_it_knows(name):
    rates = [rate(name, strength, 20) for strength in STRENGTHS]
    assert rates[-1] == 1
    assert rates[-2] >= 0.95
    # with 20 trials a share has a standard error of 0.11 at most
    assert all(after >= before - 0.2 for before, after in itertools.pairwise(rates))
    assert rates[0] < 0.6 < rates[3]


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("scores"))
@pytest.mark.parametrize(("strength", "permuted"), [(0.0, False), (2.0, True)])
def test_without_signal_or_under_permuted_labels_every_layer_is_as_likely(name, strength, permuted):
    chosen = [found(name, strength, trial, permuted) for trial in range(80)]
    counts = np.bincount(chosen, minlength=NUM_LAYERS)
    assert chisquare(counts).pvalue > 0.001
