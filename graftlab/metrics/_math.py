"""MATH's comparison of answers: as normalised strings, and as numbers."""

from collections.abc import Mapping
from typing import Any

from graftlab import answers
from graftlab.metrics import _answers
from graftlab.metrics._texts import references


def explained(row: Mapping[str, Any], *, numbers: bool) -> dict[str, Any]:
    """Return for each text its `answer`, the `rule` that found it, and whether it is `right`.

    `numbers` has answers that differ as strings compared as exact numbers, where both are.
    """
    golds = [answers.gold_expression(text) for text in references(row["label"])]

    def one(text: str) -> tuple[str, str, bool]:
        found = answers.expression(text)
        if found is None:
            return "", answers.NONE, False
        right = answers.normalised(found.text) in map(answers.normalised, golds)
        if numbers and not right:
            value = answers.rational(found.text)
            right = any(answers.equal(value, answers.rational(gold)) for gold in golds)
        return found.text, found.rule, right

    return _answers.explained(row, one)
