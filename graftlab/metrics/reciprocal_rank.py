"""Whether the text written of a vector finds it among all of the split: 1 over its place, mean over examples.

Texts are embedded again by the model that made the vectors; the nearest by cosine comes first. With N vectors
chance has (1 + 1/2 + ... + 1/N) / N. A text without a word comes last. Standard error: of the mean.
"""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import mean_of, unwritten
from graftlab.metrics._written_vectors import Config, cosines, example

__all__ = [
    "HIGHER_IS_BETTER",
    "PACKAGE",
    "READS",
    "READS_INPUTS",
    "Config",
    "each",
    "example",
    "score",
]

HIGHER_IS_BETTER = True
READS = "texts"
READS_INPUTS = True
PACKAGE = "sentence_transformers"


def score(predictions: Predictions, config: Config) -> Score:
    """Return the mean reciprocal rank in 0..1. `Raises:` as `semantic_consistency.score`."""
    if (nothing := unwritten(predictions)) is not None:
        return nothing
    return mean_of(each(predictions, config), "no examples")


def each(predictions: Predictions, config: Config) -> list[float | None]:
    """Return 1 over the rank of each example, the mean of its texts'. `Raises:` as `score`."""
    return [float((1 / near.ranks).mean()) for near in cosines(predictions, config)]
