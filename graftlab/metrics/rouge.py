"""ROUGE: F of what a text shares in words with its best reference, mean over examples.

By the package rouge-score, for the whole text at once. The package's own aggregator draws a bootstrap and
returns its median; here the mean is a mean, and nothing is drawn. It counts runs of a-z and 0-9 only: a
reference without any is left out, and said. Standard error: of the mean.
"""

from typing import Literal

from graftlab.config import Section
from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import One, scored, values

HIGHER_IS_BETTER = True
READS = "texts"
PACKAGE = "rouge_score"
UNDEFINED = "a reference has no word that ROUGE counts (a-z, 0-9)"


class Config(Section):
    """Settings of ROUGE."""

    n: Literal[1, 2, 3, 4, 5, 6, 7, 8, 9, "L", "Lsum"] = "L"
    """How many words in a row are shared; `L`: the longest subsequence of words;
    `Lsum`: that of each line with all lines of the reference."""
    stemmer: bool = False
    """Compare words without their endings (Porter)."""


def score(predictions: Predictions, config: Config) -> Score:
    """Return the mean F in 0..1; examples whose references have no word are left out and counted."""
    return scored(predictions, _scorer(config), UNDEFINED)


def each(predictions: Predictions, config: Config) -> list[float | None]:
    """Return the F of each example; None where its references have no word."""
    return values(predictions, _scorer(config))


def _scorer(config: Config) -> One:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    kind, tokenizer = f"rouge{config.n}", DefaultTokenizer(use_stemmer=config.stemmer)
    scorer = RougeScorer([kind], tokenizer=tokenizer)

    def one(text: str, references: list[str]) -> float | None:
        golds = [gold for gold in references if tokenizer.tokenize(gold)]
        return float(scorer.score_multi(golds, text)[kind].fmeasure) if golds else None

    return one
