"""Perplexity of the trained tokens: exp(sum of their losses / number of them), in nats.

It is that of the answers, given what stands before them, and comparable only between models of one
tokenizer. Standard error: delete-one jackknife over examples.
"""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._tokens import scored

HIGHER_IS_BETTER = False
READS = "tokens"
RANGE = (1.0, float("inf"))


def score(predictions: Predictions) -> Score:
    """Return the perplexity, at least 1; undefined where a loss is not finite.

    Raises:
        DataError: an example has no trained tokens.
    """
    import numpy as np

    return scored(predictions, "loss", np.exp)
