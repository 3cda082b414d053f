"""ROUGE-2: F of pairs of words that a text shares with its best reference, mean over examples.

By the package rouge-score, unstemmed, for the whole text at once. Standard error: of the mean.
"""

from graftlab.metrics import Predictions, Score, _rouge

HIGHER_IS_BETTER = True
READS = "texts"
PACKAGE = _rouge.PACKAGE


def score(predictions: Predictions) -> Score:
    """Return the mean F in 0..1; examples whose references have no word are left out and counted."""
    return _rouge.scored(predictions, "rouge2")
