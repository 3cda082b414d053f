"""Chance-corrected accuracy of a cross-validated linear classifier that is fitted well: 0 to 1.

As `probe`, but of the states as they are whatever the score space, by ridge regression to the classes; its
penalty is the one of the least error on examples left out one by one, of those that it is fitted to.
"""

from typing import TYPE_CHECKING

from graftlab.selection.scores import Sample
from graftlab.selection.scores.probe import recognised

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


# Shapes: N examples, D values each.

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of states whose variances add up to 1


def score(sample: Sample, weights_BN: "Floats") -> "Floats":
    """Return (B,) chance-corrected accuracies.

    Raises:
        Undefined: the states are the same, or not finite.
    """
    num_folds = int(sample.folds.max()) + 1
    return recognised(sample, [sample.states] * num_folds, weights_BN, None, classes)


def classes(states_ND: "Floats", labels_N: "Integers", asked_ND: "Floats") -> "Integers":
    """Return (asked,) the classes of a classifier fitted to the states."""
    from sklearn.linear_model import RidgeClassifierCV

    found: Integers = RidgeClassifierCV(PENALTIES).fit(states_ND, labels_N).predict(asked_ND)
    return found
