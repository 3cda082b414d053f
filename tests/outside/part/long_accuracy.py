"""Share of examples that are predicted right, among those whose text is long."""

import math

from pydantic import Field

from graftlab.config import Section
from graftlab.metrics import Predictions, Score, pairs

HIGHER_IS_BETTER = True
READS_INPUTS = True


class Config(Section):
    """What is long."""

    words: int = Field(2, ge=0)
    """An example counts whose text has at least so many words."""


def score(predictions: Predictions, config: Config) -> Score:
    """Return the share in 0..1, with the standard error of a share; undefined where no text is long."""
    right = [
        label == guess
        for label, guess, row in zip(*pairs(predictions), predictions, strict=True)
        if len(row["inputs"]["text"].split()) >= config.words
    ]
    if not right:
        return Score(None, None, f"no text has {config.words} words")
    share = sum(right) / len(right)
    return Score(share, math.sqrt(share * (1 - share) / len(right)), None)
