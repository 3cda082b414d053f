r"""Share of texts whose final answer is spelled as the reference's, as MATH is scored.

References are solutions with a \boxed answer, or answers alone. Both sides are normalised as Hendrycks et al.
do (`_final_answers.normalised`) and compared as strings; `math_accuracy_rational` counts equal numbers of
another spelling too. Standard error: that of a share.
"""

from collections.abc import Mapping
from typing import Any

from graftlab.metrics import Predictions, Score, _answers, _math

HIGHER_IS_BETTER = True
READS = "texts"


def explain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each text its `answer`, the `rule` that found it, and whether it is `right`."""
    return _math.explained(row, numbers=False)


def score(predictions: Predictions) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    return _answers.scored(predictions, explain)
