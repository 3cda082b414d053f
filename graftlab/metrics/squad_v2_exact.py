"""Share of SQuAD v2 answers that equal a reference once normalised; no answer where there is none.

References: a text, a list of texts, or SQuAD's own dict with a list under `text`; none, or the empty text,
for a question without an answer. Standard error: that of a share.
"""

from graftlab.metrics import Predictions, Score, _squad

HIGHER_IS_BETTER = True
READS = "texts"


def score(predictions: Predictions) -> Score:
    """Return the share in 0..1, the official script's `exact` / 100."""
    return _squad.scored(predictions, _squad.exact)
