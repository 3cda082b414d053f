"""Share of programs that equal a reference token by token, tokens being what white space parts.

It is the exact match that CodeXGLUE reports beside CodeBLEU for text-to-code. Standard error: that of a
share.
"""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import scored

HIGHER_IS_BETTER = True
READS = "texts"


def _equal(text: str, references: list[str]) -> float:
    return float(text.split() in [one.split() for one in references or [""]])


def score(predictions: Predictions) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    return scored(predictions, _equal, "no examples")
