"""Mean of the classes' F1, each class counting alike (scikit-learn's `f1_score`, average="macro").

The classes are those that occur among labels or predictions, as in scikit-learn. Standard error:
delete-one jackknife.
"""

from typing import TYPE_CHECKING, Any

from graftlab.metrics import Predictions, Score
from graftlab.metrics._confusion import Margins, f1, scored

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIGHER_IS_BETTER = True


def _closed_form(margins: Margins) -> "NDArray[Any]":
    import numpy as np

    f1_KC = f1(margins)
    occurs_KC = ~np.isnan(f1_KC)
    return np.where(occurs_KC, f1_KC, 0).sum(-1) / occurs_KC.sum(-1)


def score(predictions: Predictions) -> Score:
    """Return the macro-averaged F1 in 0..1; undefined without examples."""
    return scored(predictions, _closed_form, "no class occurs")
