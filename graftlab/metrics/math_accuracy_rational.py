r"""Share of texts whose final answer is the reference's: spelled alike, or the same exact number.

Beside `math_accuracy` it counts 0.75 for \frac{3}{4} and 1,000 for 1000. Nothing symbolic is compared.
Standard error: that of a share.
"""

from collections.abc import Mapping
from typing import Any

from graftlab.metrics import Predictions, Score, _answers, _math

HIGHER_IS_BETTER = True
READS = "texts"


def explain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each text its `answer`, the `rule` that found it, and whether it is `right`."""
    return _math.explained(row, numbers=True)


def score(predictions: Predictions) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    return _answers.scored(predictions, explain)
