"""F1 of the class 1 of two, as GLUE reports it for MRPC and QQP. Standard error: jackknife."""

from typing import TYPE_CHECKING, Any

from graftlab.errors import DataError
from graftlab.metrics import Predictions, Score, pairs
from graftlab.metrics._confusion import Margins, f1, scored

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIGHER_IS_BETTER = True
NUM_CLASSES = 2
UNDEFINED = "no example is of class 1, and none is predicted to be"


def closed_form(margins: Margins) -> "NDArray[Any]":
    """Return the F1 of class 1."""
    return f1(margins)[..., 1]


def check_two_classes(predictions: Predictions) -> None:
    """Refuse a third class.

    Raises:
        DataError: there are more than two classes.
    """
    labels, predicted = pairs(predictions)
    if strange := sorted({*labels, *predicted} - {0, 1}):
        raise DataError(
            f"F1 of class 1 is for the two classes 0 and 1, but {strange[0]} occurs too. "
            f"Name macro_f1 instead, under task.metrics."
        )


def score(predictions: Predictions) -> Score:
    """Return the F1 of class 1 in 0..1; undefined where that class neither occurs nor is predicted.

    Raises:
        DataError: there are more than two classes.
    """
    check_two_classes(predictions)
    return scored(predictions, closed_form, UNDEFINED)
