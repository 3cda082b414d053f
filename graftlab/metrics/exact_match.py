"""Share of texts that equal a reference, but for white space around them.

No reference at all stands for the empty text. Standard error: that of a share.
"""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import scored

HIGHER_IS_BETTER = True
READS = "texts"


def _equal(text: str, references: list[str]) -> float:
    return float(text.strip() in {one.strip() for one in references or [""]})


def score(predictions: Predictions) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    return scored(predictions, _equal, "no examples")
