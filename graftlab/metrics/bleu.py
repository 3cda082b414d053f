"""Corpus BLEU by the package sacrebleu with its defaults (13a tokens, case kept, exponential smoothing).

Standard error: delete-one jackknife.
"""

from graftlab.metrics import Predictions, Score, _bleu

HIGHER_IS_BETTER = True
READS = "texts"
PACKAGE = _bleu.PACKAGE


def score(predictions: Predictions) -> Score:
    """Return sacrebleu's figure / 100, in 0..1; undefined where all references are empty."""
    from sacrebleu.metrics.bleu import BLEU

    return _bleu.scored(predictions, BLEU())
