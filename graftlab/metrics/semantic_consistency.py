"""Cosine of a vector and the text written of it, embedded again by the same model; mean over examples.

A text without a word has 0. Standard error: of the mean.
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
    """Return the mean cosine.

    Raises:
        ConfigError: examples stand for no vectors, or these do not say what they were made with.
        ModelError: the model that made them is not there, or is another.
    """
    if (nothing := unwritten(predictions)) is not None:
        return nothing
    return mean_of(each(predictions, config), "no examples")


def each(predictions: Predictions, config: Config) -> list[float | None]:
    """Return the cosine of each example, the mean of its texts'. `Raises:` as `score`."""
    return [float(near.own.mean()) for near in cosines(predictions, config)]
