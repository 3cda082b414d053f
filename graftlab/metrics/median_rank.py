"""Place of a vector among all of the split for the text written of it: the median over examples, 1 is best.

Texts are embedded again by the model that made the vectors; the nearest by cosine comes first. With N vectors
chance has (N + 1) / 2. A text without a word comes last.
"""

import math
import statistics
from typing import Literal

from graftlab.contracts import Prediction
from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import unwritten
from graftlab.metrics._written_vectors import Config, cosines
from graftlab.metrics._written_vectors import example as mostly_right

__all__ = [
    "AVERAGE", "HIGHER_IS_BETTER", "PACKAGE", "RANGE", "READS", "READS_INPUTS", "Config", "each",
    "example", "score",
]  # fmt: skip

HIGHER_IS_BETTER = False
READS = "texts"
READS_INPUTS = True
RANGE = (1.0, math.inf)
PACKAGE = "sentence_transformers"
AVERAGE: Literal["mean", "median"] = "median"


def score(predictions: Predictions, config: Config) -> Score:
    """Return the median rank. `Raises:` as `semantic_consistency.score`."""
    if (nothing := unwritten(predictions)) is not None:
        return nothing
    ranks = [rank for rank in each(predictions, config) if rank is not None]
    return Score(statistics.median(ranks), None, "no standard error: a median")


def each(predictions: Predictions, config: Config) -> list[float | None]:
    """Return the rank of each example, the mean of its texts'. `Raises:` as `score`."""
    return [float(near.ranks.mean()) for near in cosines(predictions, config)]


def example() -> list[Prediction]:
    """Return texts of which most are about other vectors: a median does not see a few. `Raises:`
    ModelError."""
    rows = mostly_right()
    others = [rows[(place + 3) % len(rows)]["label"] for place in range(len(rows))]
    return [
        {**row, "prediction": other if place % 5 else row["label"]}
        for place, (row, other) in enumerate(zip(rows, others, strict=True))
    ]
