"""A linear classifier fitted on some examples and asked about others."""

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


# Shapes: N examples, D values each, K classes.

MAX_ITERATIONS = 300  # the source's


def probabilities(states_ND: "Floats", labels_N: "Integers", asked_ND: "Floats") -> "Floats":
    """Return (asked, K) class probabilities of logistic regression with a unit ridge penalty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # one that has not converged is a probe all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe = LogisticRegression(max_iter=MAX_ITERATIONS).fit(states_ND, labels_N)
    found: Floats = probe.predict_proba(asked_ND)
    return found
