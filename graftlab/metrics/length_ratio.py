"""Words of a text over those of its reference, mean over examples: 1 is as long as the reference.

More is no goal in itself: it shows whether texts are cut short (below 1) or run on (above). Several
references count by their mean length; one without words is left out. Standard error: of the mean.
"""

import math

from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import scored, values

HIGHER_IS_BETTER = True
READS = "texts"
RANGE = (0.0, math.inf)
UNDEFINED = "a reference has no words"


def score(predictions: Predictions) -> Score:
    """Return the mean ratio; examples whose references have no words are left out and counted."""
    return scored(predictions, _ratio, UNDEFINED)


def each(predictions: Predictions) -> list[float | None]:
    """Return the ratio of each example; None where its references have no words."""
    return values(predictions, _ratio)


def _ratio(text: str, references: list[str]) -> float | None:
    lengths = [length for gold in references if (length := len(gold.split()))]
    return len(text.split()) * len(lengths) / sum(lengths) if lengths else None
