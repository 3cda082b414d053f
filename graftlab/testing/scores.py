"""The promises of every score of layers, over all registered names.

More of what a layer's states show of the label is a higher score; what a score may not depend on changes
nothing; and a layer of which nothing can be said has none.
"""

import itertools

import numpy as np
import pytest

from graftlab import registry
from graftlab.contracts.arrays import Floats, Integers
from graftlab.selection import examples, space
from graftlab.selection.scores import Sample, Undefined

every = pytest.mark.parametrize("name", registry.names("scores"))
NUM_CLASSES, NUM_EXAMPLES, WIDTH, FOLDS, COMPONENTS = 3, 90, 20, 5, 6
NUM_LAYERS = 4
STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)

# Shapes: N examples, D values of a state.


def make(strength: float = 0.6, components: int | None = COMPONENTS) -> Sample:
    """Return a layer whose states know the label the better, the greater the strength."""
    draws = np.random.default_rng(0)
    labels_N = draws.permutation(np.arange(NUM_EXAMPLES) % NUM_CLASSES)
    means = draws.normal(size=(NUM_CLASSES, WIDTH))
    states_ND = draws.normal(size=(NUM_EXAMPLES, WIDTH)) + strength * means[labels_N] + 2
    return of(space.unit_length(states_ND), labels_N, components)


def of(states_ND: Floats, labels_N: Integers, components: int | None = COMPONENTS) -> Sample:
    """Return states as a sample; the plugged vectors are the states themselves."""
    folds = examples.folds(labels_N, FOLDS, 0)
    plugged = (states_ND,) * FOLDS
    return Sample(states_ND, labels_N, folds, components, COMPONENTS, 2, plugged)


def score(name: str, sample: Sample) -> float:
    ones = np.ones((1, len(sample.labels)))
    return float(registry.find("scores", name).score(sample, ones)[0])


def _rounds_behind(name: str, strength: float, trial: int) -> int:
    """Return by how many layers the one chosen lies behind the only one that knows, round and round."""
    draws = np.random.default_rng([trial, int(100 * strength)])
    labels_N = np.arange(48) % 2
    informative, direction = trial % NUM_LAYERS, draws.normal(size=16)
    scores = []
    for layer in range(NUM_LAYERS):
        signal = strength * np.outer(2 * labels_N - 1, direction) * (layer == informative)
        states_ND = space.unit_length(draws.normal(size=(48, 16)) + signal)
        folds = examples.folds(labels_N, 3, 0)
        sample = Sample(states_ND, labels_N, folds, 8, 8, 3, (states_ND,) * 3)
        scores.append(score(name, sample))
    best = np.flatnonzero(np.array(scores) == max(scores))  # of equal ones, any
    return int((draws.choice(best) - informative) % NUM_LAYERS)


@every
def test_the_informative_layer_is_found_the_more_surely_the_more_it_knows(name: str) -> None:
    rates = [
        np.mean([_rounds_behind(name, strength, trial) == 0 for trial in range(20)])
        for strength in STRENGTHS
    ]
    assert rates[-1] == 1
    assert rates[-2] >= 0.95
    # with 20 trials a share has a standard error of 0.11 at most
    assert all(after >= before - 0.2 for before, after in itertools.pairwise(rates))
    assert rates[0] < 0.6 < rates[3]


@every
def test_more_signal_is_a_higher_score(name: str) -> None:
    found = [score(name, make(strength)) for strength in (0, 0.5, 2)]
    assert found[0] < found[1] < found[2]


@every
@pytest.mark.parametrize("components", [COMPONENTS, None])
def test_turning_and_scaling_all_states_changes_no_score(name: str, components: int | None) -> None:
    sample = make(components=components)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    moved = of(7 * sample.states @ turn, sample.labels, components)
    assert score(name, moved) == pytest.approx(score(name, sample), abs=1e-3)


@every
def test_states_of_more_values_than_examples_are_turned_into_fewer(name: str) -> None:
    draws = np.random.default_rng(3)
    labels_N = np.arange(NUM_EXAMPLES) % NUM_CLASSES
    states_ND = draws.normal(size=(NUM_EXAMPLES, 300)) + draws.normal(size=(3, 300))[labels_N]
    long = space.unit_length(states_ND)
    short = space.shorten(long)
    assert short.shape == (NUM_EXAMPLES, NUM_EXAMPLES)
    found, expected = (score(name, of(x, labels_N)) for x in (short, long))
    assert found == pytest.approx(expected, abs=1e-3)  # a solver stops at a tolerance


@every
@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_layer_whose_states_are_the_same_or_not_finite_has_no_score(
    name: str, value: float
) -> None:
    labels_N = np.arange(NUM_EXAMPLES) % NUM_CLASSES
    with pytest.raises(Undefined):
        score(name, of(np.full((NUM_EXAMPLES, WIDTH), value), labels_N))
