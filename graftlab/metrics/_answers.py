"""Metrics of final answers: what of `graftlab.metrics._final_answers` they share."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from graftlab.metrics import Predictions, Score
from graftlab.metrics._final_answers import NONE, RULES
from graftlab.metrics._means import mean
from graftlab.metrics._texts import unwritten, written

Explain = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From a prediction to one entry a sample under each of `answer`, `rule` and `right`."""


def explained(
    row: Mapping[str, object], one: Callable[[str], tuple[str, str, bool]]
) -> dict[str, object]:
    """Return `answer`, `rule` and `right` of each text that was written for an example."""
    found = [one(text) for text in written(row)]
    names = ("answer", "rule", "right")
    return {name: [entry[place] for entry in found] for place, name in enumerate(names)}


def scored(predictions: Predictions, explain: Explain) -> Score:
    """Return the share of right answers; in the details how many texts each rule found an answer in."""
    if (nothing := unwritten(predictions)) is not None:
        return nothing
    found = [explain(row) for row in predictions]
    rules = Counter(rule for row in found for rule in row["rule"])
    details = {"rules": {rule: rules[rule] for rule in (*RULES, NONE)}}
    return mean([sum(row["right"]) / len(row["right"]) for row in found], details)
