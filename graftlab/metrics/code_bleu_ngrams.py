"""The n-gram part of CodeBLEU: corpus BLEU over what white space parts, counts of 0 read as 0.1.

Ren et al., CodeBLEU, 2020, eq. 1, as its reference implementation smooths it. CodeBLEU's other three parts
(keywords weighted, syntax trees, data flow) need a parser for each language and are left out: this is not
CodeBLEU. Standard error: delete-one jackknife.
"""

from graftlab.metrics import Predictions, Score, _bleu

HIGHER_IS_BETTER = True
READS = "texts"
PACKAGE = _bleu.PACKAGE


def score(predictions: Predictions) -> Score:
    """Return the BLEU in 0..1; undefined where all references are empty."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize="none", smooth_method="floor", smooth_value=0.1, force=True)
    return _bleu.scored(predictions, bleu)
