"""Mean of accuracy and F1 of class 1, GLUE's figure for MRPC and QQP. Standard error: jackknife."""

from graftlab.metrics import Predictions, Score, binary_f1
from graftlab.metrics._confusion import accuracy, scored
from graftlab.metrics.binary_f1 import check_two_classes

HIGHER_IS_BETTER = True
NUM_CLASSES = 2


def score(predictions: Predictions) -> Score:
    """Return the mean in 0..1; undefined where the F1 is.

    Raises:
        DataError: there are more than two classes.
    """
    check_two_classes(predictions)
    return scored(
        predictions,
        lambda margins: (accuracy(margins) + binary_f1.closed_form(margins)) / 2,
        binary_f1.UNDEFINED,
    )
