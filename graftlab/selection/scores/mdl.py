"""How much shorter a linear classifier makes the labels' description: 1 is to nothing, 0 is not at all.

1 - bits / (N log2 K), where the bits are the online code of Voita and Titov (2020, arXiv 2003.12298): the
examples come in ten portions; the first costs log2 K bits each, and every later one -log2 p(label) under
the classifier fitted on all before it. Below zero where the classifier misleads.
"""

import itertools
from typing import TYPE_CHECKING

from graftlab.seeds import mix
from graftlab.selection import space
from graftlab.selection.scores import Sample, Undefined, class_mean
from graftlab.selection.scores._classifier import probabilities

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


# Shapes: N examples, B rows of weights, K classes.

PORTIONS = 10


def score(sample: Sample, weights_BN: "Floats") -> "Floats":
    """Return (B,) shares of the uniform code's length that are saved.

    Raises:
        Undefined: there are not two examples a class to begin with, or the states are the same.
    """
    import numpy as np

    uniform = np.log2(sample.num_classes)
    bits_N = np.full(len(sample.labels), uniform)
    order_N = in_turns(sample.labels, sample.seed)
    first = max(2 * sample.num_classes, round(len(order_N) / PORTIONS))
    if first >= len(order_N):
        raise Undefined(f"{len(order_N)} examples are too few for {sample.num_classes} classes")
    ends = np.unique(np.linspace(first, len(order_N), PORTIONS).round().astype(int))
    for start, end in itertools.pairwise(ends):
        known_N = np.zeros(len(order_N), bool)
        known_N[order_N[:start]] = True
        coded = order_N[start:end]
        projected_NC = space.project(sample.states, known_N, sample.components)
        found = probabilities(projected_NC[known_N], sample.labels[known_N], projected_NC[coded])
        own = found[np.arange(len(coded)), sample.labels[coded]]
        bits_N[coded] = -np.log2(np.maximum(own, np.finfo(np.float64).tiny))
    return 1 - class_mean(bits_N, sample.labels, weights_BN) / uniform


def in_turns(labels_N: "Integers", seed: int) -> "Integers":
    """Return the examples in a seeded order that takes from each class in turn, as long as it has some."""
    import numpy as np

    rank_N = np.empty(len(labels_N))
    for c in range(int(labels_N.max()) + 1):
        own = np.flatnonzero(labels_N == c)
        rank_N[np.random.default_rng(mix(seed, "mdl", c)).permutation(own)] = np.arange(len(own))
    order: Integers = np.lexsort((labels_N, rank_N))
    return order
