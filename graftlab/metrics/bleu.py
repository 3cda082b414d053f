"""Corpus BLEU by the package sacrebleu, whose defaults these are (13a tokens, exponential smoothing).

BLEU is made of counts summed over the corpus, so that leaving out an example is a subtraction: the standard
error is the delete-one jackknife.

With `tokenize: none`, `smooth: floor` and `smooth_value: 0.1` it is the n-gram part of CodeBLEU (Ren et al.,
2020, eq. 1), as its reference implementation smooths it. CodeBLEU's other three parts (keywords weighted,
syntax trees, data flow) need a parser for each language and are left out.
"""

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from graftlab.config import Conflict, Section
from graftlab.metrics import Predictions, Score
from graftlab.metrics._confusion import standard_error
from graftlab.metrics._texts import examples, unwritten

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Integers

HIGHER_IS_BETTER = True
READS = "texts"
PACKAGE = "sacrebleu"


class Config(Section):
    """Settings of BLEU, by sacrebleu's names."""

    tokenize: Literal["13a", "char", "intl", "none", "zh"] = "13a"
    """How texts are parted: by mteval's rules, into characters, by Unicode's classes, at white space, or as
    Chinese."""
    lowercase: bool = False
    """Compare without case."""
    max_order: int = Field(4, ge=1)
    """Words of the longest n-grams."""
    smooth: Literal["exp", "floor", "add-k", "none"] = "exp"
    """What stands for a count of 0."""
    smooth_value: float | None = Field(None, ge=0)
    """Of `floor` and `add-k`: that value. Left out: sacrebleu's, 0.1 and 1."""

    @model_validator(mode="after")
    def _value_is_of_a_smoothing(self) -> "Config":
        if self.smooth_value is not None and self.smooth not in ("floor", "add-k"):
            raise Conflict(
                "smooth_value", "smooth_value has no effect unless smooth is floor or add-k"
            )
        return self


def score(predictions: Predictions, config: Config) -> Score:
    """Return the corpus BLEU in 0..1; examples whose references are all empty are left out and counted."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    if (nothing := unwritten(predictions)) is not None:
        return nothing
    counts, order = _counts(predictions, config), config.max_order
    left_out = len(predictions) - len(counts)
    details = {"left_out": left_out, "because": "the reference is empty"} if left_out else None
    if not counts:
        return Score(None, None, "all references are empty", details)

    def value(total: "Integers") -> float:
        length, wanted, *rest = total.tolist()
        found = BLEU.compute_bleu(
            rest[:order], rest[order:], length, wanted, config.smooth, config.smooth_value,
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


def _counts(predictions: Predictions, config: Config) -> "list[Integers]":
    """Return the lengths, hits and n-grams of each example that has a reference, summed over its samples."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    counter = BLEU(  # of a sentence only counts are taken: unsmoothed, and without sacrebleu's warnings
        config.lowercase, config.tokenize == "none", config.tokenize, "none", None,
        config.max_order, effective_order=True,
    )  # fmt: skip
    counts: list[Integers] = []
    for texts, references in examples(predictions):
        if golds := [gold for gold in references if gold.strip()]:
            found = (counter.sentence_score(text, golds) for text in texts)
            rows = [[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found]
            counts.append(np.sum(rows, axis=0))
    return counts
