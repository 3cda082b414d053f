"""Matthews correlation of labels and predictions, for two classes or more; GLUE's metric for CoLA.

A correlation with a constant is not defined, so there is no value where all labels or all
predictions are of one class; scikit-learn returns 0 there. Standard error: delete-one jackknife.
"""

from typing import TYPE_CHECKING

from graftlab.metrics import Predictions, Score
from graftlab.metrics._confusion import Margins, scored

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats

HIGHER_IS_BETTER = True
PROBLEMS = ("classes",)


def _closed_form(margins: Margins) -> "Floats":
    """Gorodkin, Comparing two K-category assignments by a K-category correlation, 2004."""
    import numpy as np

    right_KC, true_KC, predicted_KC = margins
    num_K = true_KC.sum(-1)
    together_K = right_KC.sum(-1) * num_K - (true_KC * predicted_KC).sum(-1)
    spreads_K = (num_K**2 - (part_KC**2).sum(-1) for part_KC in (true_KC, predicted_KC))
    return together_K / np.sqrt(np.prod(list(spreads_K), axis=0))


def score(predictions: Predictions) -> Score:
    """Return the correlation in -1..1; undefined where labels or predictions are of one class."""
    undefined = "all labels, or all predictions, are of one class"
    return scored(predictions, _closed_form, undefined)
