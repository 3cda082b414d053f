"""A text of megabytes in a row is cut before it is tokenized, and to the same tokens."""

import random
from typing import Any

import pytest

from graftlab.backbones import tiny
from graftlab.contracts import Problem
from graftlab.tasks import _tokens
from graftlab.tasks._tokens import Texts

WORDS = [f"w{number}" for number in range(999)]


class Counting:
    """A tokenizer that keeps the size of the longest text it was given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.longest = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, texts: Any, *arguments: Any, **options: Any) -> Any:
        given = [texts] if isinstance(texts, str) else texts
        self.longest = max(self.longest, *map(len, given))
        return self._tokenizer(texts, *arguments, **options)


def tokenizer(side: str) -> Any:
    found = tiny.load(tiny.Config(), Problem("classes", ("a", "b")), 0).processor
    found.truncation_side = side
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("paired", [False, True])
def test_the_tokens_are_those_of_the_whole_and_the_whole_is_not_tokenized(
    side: str, paired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=k)) for k in (3, 60, 225)]
    pairs = [texts[2], texts[1], texts[2]] if paired else [None] * 3
    counting = Counting(tokenizer(side))
    found = Texts(texts, pairs, counting, 16)
    assert counting.longest <= _tokens.LONG * 16
    monkeypatch.setattr(_tokens, "LONG", 10**9)
    whole = Texts(texts, pairs, tokenizer(side), 16)
    assert (found.pad(range(3))["input_ids"] == whole.pad(range(3))["input_ids"]).all()
    assert found.truncated == whole.truncated
