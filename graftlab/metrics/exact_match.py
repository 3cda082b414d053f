"""Share of texts that equal a reference, but for white space.

No reference at all stands for the empty text. Standard error: that of a share.
"""

from typing import Literal

from graftlab.config import Section
from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import One, scored, values

HIGHER_IS_BETTER = True
READS = "texts"


class Config(Section):
    """Settings of the exact match."""

    ignore: Literal["outer", "amount"] = "outer"
    """White space that makes no difference: that around a text, or everywhere how much of it there is (the
    exact match that CodeXGLUE reports beside CodeBLEU)."""


def score(predictions: Predictions, config: Config) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    return scored(predictions, _equal(config), "no examples")


def each(predictions: Predictions, config: Config) -> list[float | None]:
    """Return 1 for each example whose text equals a reference, 0 for others."""
    return values(predictions, _equal(config))


def _equal(config: Config) -> One:
    plain = str.strip if config.ignore == "outer" else _single_spaced

    def equal(text: str, references: list[str]) -> float:
        return float(plain(text) in map(plain, references or [""]))

    return equal


def _single_spaced(text: str) -> str:
    return " ".join(text.split())
