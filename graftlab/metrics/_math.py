"""MATH's comparison of answers: as normalised strings, and as numbers."""

from collections.abc import Mapping
from typing import Any

from graftlab.metrics import _answers, _final_answers
from graftlab.metrics._texts import references


def explained(row: Mapping[str, Any], *, numbers: bool) -> dict[str, Any]:
    """Return for each text its `answer`, the `rule` that found it, and whether it is `right`.

    `numbers` has answers that differ as strings compared as exact numbers, where both are.
    """
    golds = [_final_answers.gold_expression(text) for text in references(row["label"])]

    def one(text: str) -> tuple[str, str, bool]:
        found = _final_answers.expression(text)
        if found is None:
            return "", _final_answers.NONE, False
        right = _final_answers.normalised(found.text) in map(_final_answers.normalised, golds)
        if numbers and not right:
            value = _final_answers.rational(found.text)
            right = any(
                _final_answers.equal(value, _final_answers.rational(gold)) for gold in golds
            )
        return found.text, found.rule, right

    return _answers.explained(row, one)
