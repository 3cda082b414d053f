"""Corpus BLEU by the package sacrebleu, with the delete-one jackknife.

BLEU is made of counts summed over the corpus, so that leaving out an example is a subtraction.
"""

import math
from typing import TYPE_CHECKING, Any

from graftlab.metrics import Predictions, Score
from graftlab.metrics._confusion import standard_error
from graftlab.metrics._texts import examples, unwritten

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

PACKAGE = "sacrebleu"


def scored(predictions: Predictions, bleu: "BLEU") -> Score:
    """Return the corpus BLEU in 0..1; examples whose references are all empty are left out and counted."""
    import numpy as np

    if (nothing := unwritten(predictions)) is not None:
        return nothing
    bleu.effective_order = (
        True  # of a sentence only counts are taken; sacrebleu would warn each time
    )
    counts: list[Any] = []
    for texts, references in examples(predictions):
        if golds := [gold for gold in references if gold.strip()]:
            found = (bleu.sentence_score(text, golds) for text in texts)
            rows = [[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found]
            counts.append(np.sum(rows, axis=0))
    left_out = len(predictions) - len(counts)
    details = {"left_out": left_out, "because": "the reference is empty"} if left_out else None
    if not counts:
        return Score(None, None, "all references are empty", details)

    def value(total: Any) -> float:
        length, wanted, *rest = total.tolist()
        order = bleu.max_ngram_order
        found = bleu.compute_bleu(
            rest[:order], rest[order:], length, wanted, bleu.smooth_method, bleu.smooth_value,
            max_ngram_order=order,
        )  # fmt: skip
        return float(found.score) / 100

    whole = np.sum(counts, axis=0)
    error = None
    if len(counts) > 1:
        left = np.array([value(whole - one) for one in counts])
        error = standard_error(left, np.ones(len(left)))
    reason = None if error is not None else "no standard error: one example only"
    assert error is None or math.isfinite(error)
    return Score(value(whole), error, reason, details)
