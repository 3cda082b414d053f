"""What a model is asked of each text: words, sampling by group, and how long an answer is to be."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from graftlab.errors import GraftlabError
from graftlab.seeds import mix
from graftlab.synthesis.documents import Documents
from graftlab.tasks.elm import prompts

SAMPLING = {"factual": (0.3, 0.85), "descriptive": (0.5, 0.9), "creative": (0.7, 0.92)}
"""Temperature and top_p of each group."""
MIN_TOKENS = {
    **{"keywords": 25, "category": 40, "summary": 50, "questions": 60},
    **{"related_topics": 80, "characteristics_pos": 80, "characteristics_neg": 80},
    **{"explain_beginner": 100, "explain_expert": 100, "style_academic": 100, "style_casual": 100},
    **{"describe": 120, "counterfactual": 80},
}
"""Tokens that an answer has at least; the source has no figure for `counterfactual`."""
WORDS_OF_A_TOKEN = 0.75  # of English, by OpenAI's rule of thumb
DOMAINS = (
    *(
        "agriculture",
        "architecture",
        "astronomy",
        "banking",
        "chess",
        "cooking",
        "dance",
        "education",
    ),
    *("fashion", "film", "forestry", "law", "medicine", "music", "navigation", "opera", "politics"),
    *("psychology", "railways", "software", "sport", "theatre", "tourism", "weaving"),
)


class Unanswerable(Exception):
    """A model refuses an order, which may be for this text alone."""

    def __init__(self, reason: str, error: GraftlabError) -> None:
        """`error` is to be raised where it is not for this text alone."""
        super().__init__(reason)
        self.reason, self.error = reason, error


class Order(NamedTuple):
    """One answer that is wanted."""

    split: str
    document: int
    """Place of the text in its split."""
    task_type: str
    domain: str | None
    text: str
    temperature: float
    top_p: float
    seed: int

    @property
    def message(self) -> str:
        """What the model is told: the same words that stand behind the vector, with the text between."""
        instruction, _, cue = prompts.named(self.task_type).prompt(self.domain).rpartition("\n")
        return f"{instruction}\n\n{self.text}\n\n{cue}"

    @property
    def min_words(self) -> int:
        """Words that the answer has at least."""
        return round(MIN_TOKENS[self.task_type] * WORDS_OF_A_TOKEN)


def of(documents: Documents, types: Sequence[str], seed: int) -> Iterator[Order]:
    """Yield what is asked, text by text; each is drawn from the seed, the text and the task type alone."""
    for split, found in documents.splits.items():
        for number, document in enumerate(found):
            for name in types:
                kind, own = prompts.named(name), mix(seed, name, document.key.hex())
                domain = DOMAINS[own % len(DOMAINS)] if kind.wants_domain else None
                sampling = SAMPLING[kind.group]
                drawn = own % 2**31  # what endpoints take
                yield Order(split, number, name, domain, document.text, *sampling, drawn)
