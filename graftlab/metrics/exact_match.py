"""Share of texts that equal a reference, but for white space.

No reference at all stands for the empty text. Standard error: that of a share.
"""

from typing import Literal

from graftlab.config import Section
from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import scored

HIGHER_IS_BETTER = True
READS = "texts"


class Config(Section):
    """Settings of the exact match."""

    ignore: Literal["outer", "amount"] = "outer"
    """White space that makes no difference: that around a text, or everywhere how much of it there is (the
    exact match that CodeXGLUE reports beside CodeBLEU)."""


def score(predictions: Predictions, config: Config) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    plain = str.strip if config.ignore == "outer" else _single_spaced

    def equal(text: str, references: list[str]) -> float:
        return float(plain(text) in map(plain, references or [""]))

    return scored(predictions, equal, "no examples")


def _single_spaced(text: str) -> str:
    return " ".join(text.split())
