"""Share of the trained tokens that the model holds for the likeliest, each seen from the token before.

Every token counts alike, however they lie in examples. Standard error: delete-one jackknife over examples.
"""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._tokens import scored

HIGHER_IS_BETTER = True
READS = "tokens"


def score(predictions: Predictions) -> Score:
    """Return the share in 0..1; undefined without examples.

    Raises:
        DataError: an example has no trained tokens.
    """
    return scored(predictions, "correct", lambda share: share)
