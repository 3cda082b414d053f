"""Mean F1 of the tokens that SQuAD v2 answers share with their best reference, once normalised.

References: a text, a list of texts, or SQuAD's own dict with a list under `text`; none, or the empty text,
for a question without an answer. Standard error: of the mean.
"""

from graftlab.metrics import Predictions, Score, _squad

HIGHER_IS_BETTER = True
READS = "texts"


def score(predictions: Predictions) -> Score:
    """Return the mean in 0..1, the official script's `f1` / 100."""
    return _squad.scored(predictions, _squad.f1)
