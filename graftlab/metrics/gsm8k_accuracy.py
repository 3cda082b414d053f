"""Share of texts whose final number is that of the reference, as GSM8K asks for.

Where the number stands is found by the ordered rules of `_final_answers`, and numbers are compared exactly:
3.5 is not 4, 1,234,567 is 1234567. A text without a number is wrong. Standard error: that of a share.
"""

from collections.abc import Mapping

from graftlab.errors import DataError
from graftlab.metrics import Predictions, Score, _answers, _final_answers
from graftlab.metrics._texts import references

HIGHER_IS_BETTER = True
READS = "texts"


def explain(row: Mapping[str, object]) -> dict[str, object]:
    """Return for each text its `answer`, the `rule` that found it, and whether it is `right`.

    Raises:
        DataError: the reference holds no number.
    """
    golds = [
        found[0] for text in references(row["label"]) if (found := _final_answers.number(text))
    ]
    if not golds:
        raise DataError(
            f"the label {row['label']!r:.80} of example {row.get('index')} holds no number, so it is no "
            f"answer of GSM8K's kind. Name exact_match instead, under task.metrics."
        )

    def one(text: str) -> tuple[str, str, bool]:
        found = _final_answers.number(text)
        if found is None:
            return "", _final_answers.NONE, False
        return (
            str(found[0].value),
            found[1],
            any(_final_answers.equal(found[0], gold) for gold in golds),
        )

    return _answers.explained(row, one)


def score(predictions: Predictions) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    return _answers.scored(predictions, explain)
