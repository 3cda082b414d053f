r"""Share of texts whose final answer is spelled as the reference's, as MATH is scored.

References are solutions with a \boxed answer, or answers alone. Both sides are normalised as Hendrycks et al.
do (`_final_answers.normalised`) and compared as strings. Nothing symbolic is compared. Standard error: that
of a share.
"""

from collections.abc import Mapping

from graftlab.config import Section
from graftlab.metrics import Predictions, Score, _answers, _final_answers
from graftlab.metrics._texts import references

HIGHER_IS_BETTER = True
READS = "texts"


class Config(Section):
    """Settings of MATH's accuracy."""

    numbers: bool = False
    r"""Count answers too that are the same exact number otherwise spelled: 0.75 for \frac{3}{4}."""


def explain(row: Mapping[str, object], config: Config) -> dict[str, object]:
    """Return for each text its `answer`, the `rule` that found it, and whether it is `right`."""
    golds = [_final_answers.gold_expression(text) for text in references(row["label"])]

    def one(text: str) -> tuple[str, str, bool]:
        found = _final_answers.expression(text)
        if found is None:
            return "", _final_answers.NONE, False
        right = _final_answers.normalised(found.text) in map(_final_answers.normalised, golds)
        if config.numbers and not right:
            value = _final_answers.rational(found.text)
            right = any(
                _final_answers.equal(value, _final_answers.rational(gold)) for gold in golds
            )
        return found.text, found.rule, right

    return _answers.explained(row, one)


def score(predictions: Predictions, config: Config) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    return _answers.scored(predictions, lambda row: explain(row, config))
