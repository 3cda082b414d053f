"""SQuAD v2 answers beside their best reference, once normalised; no answer where there is none.

Rajpurkar et al., Know What You Don't Know, 2018. Normalisation and F1 are those of the official evaluation
script: lower case, no punctuation, no articles, white space collapsed; the best of the references counts;
where a side has no token left, equality does.

The official predictions leave an unanswerable question empty. A model that writes says so in words:
`NO_ANSWER` lists the spellings that count as empty, in predictions and in references alike.

References: a text, a list of texts, or SQuAD's own dict with a list under `text`; none, or the empty text,
for a question without an answer. Standard error: of the mean.
"""

import re
import string
from collections import Counter
from typing import Literal

from graftlab.config import Section
from graftlab.metrics import Predictions, Score, _texts
from graftlab.metrics._means import mean

HIGHER_IS_BETTER = True
READS = "texts"
NO_ANSWER = frozenset(
    {
        "",
        "cannot be answered",
        "it cannot be answered",
        "no answer",
        "noanswer",
        "not answerable",
        "question cannot be answered",
        "question is unanswerable",
        "there is no answer",
        "this question cannot be answered",
        "this question is unanswerable",
        "unanswerable",
    }
)
"""What counts as no answer, normalised otherwise: "The question is unanswerable." is among them."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Config(Section):
    """Settings of SQuAD v2."""

    figure: Literal["exact", "f1"] = "f1"
    """What of an answer counts: whether it is equal, or the F1 of its words; the official script's names."""


def normalised(answer: str) -> str:
    """Return an answer as the official script compares it; empty where it says that there is none."""
    bare = " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())
    return "" if bare in NO_ANSWER else bare


def exact(text: str, gold: str) -> float:
    """Return whether two normalised answers are equal."""
    return float(text == gold)


def f1(text: str, gold: str) -> float:
    """Return the F1 of the tokens of two normalised answers."""
    texts, golds = text.split(), gold.split()
    if not texts or not golds:
        return float(texts == golds)
    common = sum((Counter(texts) & Counter(golds)).values())
    return 2 * common / (len(texts) + len(golds))


FIGURES = {"exact": exact, "f1": f1}


def score(predictions: Predictions, config: Config) -> Score:
    """Return the mean in 0..1, the official script's / 100; questions with and without an answer apart in the
    details."""
    if (nothing := _texts.unwritten(predictions)) is not None:
        return nothing
    figure = FIGURES[config.figure]
    values: list[float] = []
    by_kind: dict[str, list[float]] = {"has_answer": [], "no_answer": []}
    for texts, references in _texts.examples(predictions):
        golds = [gold for gold in map(normalised, references) if gold] or [""]
        figures = [max(figure(normalised(text), gold) for gold in golds) for text in texts]
        values.append(sum(figures) / len(figures))
        by_kind["has_answer" if golds[0] else "no_answer"].append(values[-1])
    details = {
        kind: {"value": mean(figures).value, "count": len(figures)}
        for kind, figures in by_kind.items()
    }
    return mean(values, details)
