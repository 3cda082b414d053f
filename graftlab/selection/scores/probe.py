"""Chance-corrected accuracy of a cross-validated linear classifier: 0 is guessing, 1 is never wrong.

(a - 1/K) / (1 - 1/K), where a is the mean over classes of the share that is recognised: the accuracy,
as long as all classes have the same number of examples. Each fold's classifier, and the components that
it reads, are fitted without that fold.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graftlab.selection import space
from graftlab.selection.scores import Sample, class_mean
from graftlab.selection.scores._classifier import probabilities

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


def score(sample: Sample, weights_BN: "Floats") -> "Floats":
    """Return (B,) chance-corrected accuracies."""
    num_folds = int(sample.folds.max()) + 1
    return recognised(sample, [sample.states] * num_folds, weights_BN, sample.components, classes)


def classes(states_ND: "Floats", labels_N: "Integers", asked_ND: "Floats") -> "Integers":
    """Return (asked,) the likeliest classes under a classifier fitted to the states."""
    found: Integers = probabilities(states_ND, labels_N, asked_ND).argmax(axis=1)
    return found


def recognised(
    sample: Sample,
    states: "Sequence[Floats]",
    weights_BN: "Floats",
    components: int | None,
    classify: "Callable[[Floats, Integers, Floats], Integers]",
) -> "Floats":
    """Return (B,) chance-corrected accuracies, where fold f reads `components` of states `states[f]` (N, D),
    and `classify` is given those of the others, their labels, and its own.

    Raises:
        Undefined: the states are the same, or not finite.
    """
    import numpy as np

    right_N = np.zeros(len(sample.labels))
    for fold, states_ND in enumerate(states):
        tested_N = sample.folds == fold
        projected_NC = space.project(states_ND, ~tested_N, components)
        predicted = classify(
            projected_NC[~tested_N], sample.labels[~tested_N], projected_NC[tested_N]
        )
        right_N[tested_N] = predicted == sample.labels[tested_N]
    chance = 1 / sample.num_classes
    return (class_mean(right_N, sample.labels, weights_BN) - chance) / (1 - chance)
