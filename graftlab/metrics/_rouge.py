"""ROUGE by the package rouge-score, without stemming: each example's F of its best reference, then the mean.

The package's own aggregator draws a bootstrap and returns its median; here the mean is a mean, and nothing
is drawn. The package counts runs of a-z and 0-9 only: a reference without any is left out, and said.
"""

from graftlab.metrics import Predictions, Score
from graftlab.metrics._texts import scored as mean_scored

PACKAGE = "rouge_score"
UNDEFINED = "a reference has no word that ROUGE counts (a-z, 0-9)"


def scored(predictions: Predictions, kind: str) -> Score:
    """Return the mean F of `rouge1`, `rouge2` or `rougeL` in 0..1."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(use_stemmer=False)
    scorer = RougeScorer([kind], tokenizer=tokenizer)

    def one(text: str, references: list[str]) -> float | None:
        golds = [gold for gold in references if tokenizer.tokenize(gold)]
        return float(scorer.score_multi(golds, text)[kind].fmeasure) if golds else None

    return mean_scored(predictions, one, UNDEFINED)
