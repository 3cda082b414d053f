"""Share of examples that are predicted right.

Standard error: that of a share, sqrt(p (1 - p) / n); 0 where all or none are right.
"""

import math
import operator

from graftlab.metrics import Predictions, Score, pairs

HIGHER_IS_BETTER = True
PROBLEMS = ("classes",)


def score(predictions: Predictions) -> Score:
    """Return the accuracy in 0..1; undefined without examples."""
    labels, predicted = pairs(predictions)
    num_examples = len(labels)
    if not num_examples:
        return Score(None, None, "no examples")
    share = sum(map(operator.eq, labels, predicted)) / num_examples
    return Score(share, math.sqrt(share * (1 - share) / num_examples), None)
