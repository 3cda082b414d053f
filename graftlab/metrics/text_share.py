"""Share of texts that are empty, short, the same for other references, or go round in circles.

What goes wrong where a model writes without having read: the less the better. Standard error: of a share.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from graftlab.config import Conflict, Section
from graftlab.contracts import Prediction
from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import mean_of, references, unwritten, written

HIGHER_IS_BETTER = False
READS = "texts"
RANGE = (0.0, 1.0)
LOOP = 0.5
"""Share of a text's runs of three words that have stood in it before, from which on it goes round in circles:
what the filter of synthesized rows takes too."""


class Config(Section):
    """Which texts are counted."""

    what: Literal["empty", "short", "repeated", "looping"] = "empty"
    """Without a word; of fewer than `words` words; written for an example with other references too; or made
    of the same three words in a row, again and again."""
    words: int = Field(5, ge=2)
    """Of `short`: from how many words on a text is not."""

    @model_validator(mode="after")
    def _words_are_of_short_texts(self) -> "Config":
        if self.words != 5 and self.what != "short":
            raise Conflict("words", f"words has no effect with what {self.what}")
        return self


def score(predictions: Predictions, config: Config) -> Score:
    """Return the share in 0..1; undefined without examples or texts."""
    if (nothing := unwritten(predictions)) is not None:
        return nothing
    return mean_of(each(predictions, config), "no examples")


def each(predictions: Predictions, config: Config) -> list[float | None]:
    """Return of each example the share of its texts that are counted."""
    counts = _counter(predictions, config)
    found: list[float | None] = []
    for row in predictions:
        texts = written(row)
        found.append(sum(map(counts, texts)) / len(texts) if texts else None)
    return found


def _counter(predictions: Predictions, config: Config) -> Callable[[str], bool]:
    if config.what == "empty":
        return lambda text: not text.strip()
    if config.what == "short":
        return lambda text: len(text.split()) < config.words
    if config.what == "looping":
        return lambda text: repetition(text) > LOOP
    meant: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for row in predictions:
        for text in written(row):
            meant[text.strip()].add(tuple(references(row["label"])))
    return lambda text: len(meant[text.strip()]) > 1


def repetition(text: str) -> float:
    """Return the share of a text's runs of three words that have stood in it before; 0 of shorter texts."""
    words = text.casefold().split()
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def example() -> list[Prediction]:
    """Return texts of which every seventh is empty or goes round in circles."""
    good = [f"She pays {i} dollars for {2 * i} red apples" for i in range(50)]
    bad = ("", "no no no no no no no")
    return [
        {"index": i, "label": text, "prediction": text if i % 7 else bad[i // 7 % 2]}
        for i, text in enumerate(good)
    ]
