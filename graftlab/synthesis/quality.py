"""Why an answer of a model is no row: the first reason that holds."""

import re
from collections.abc import Sequence

from graftlab.synthesis.orders import Order
from graftlab.tasks.elm import prompts

HEAD = 200  # characters in which a leak is looked for
LEAKS = re.compile(
    r"\bas an? (ai|language model|assistant)\b|\bi('m| am) (sorry|unable|an ai)\b|\bi can('t|not| not)\b"
    r"|^\W*(sure|certainly|of course|absolutely)\b[,!:]|\bhere (is|are|'s) (the|your|a|an|five|three)\b"
    r"|\b(system|user|assistant) ?:|\byou (asked|want) me\b|\bthe (instruction|prompt|task) (is|says|asks)\b"
    r"|<\|[a-z_]+\|>",
    re.I,
)
MOST_REPEATED = 0.5  # share of trigrams that were there before
LEAST_LETTERS = 0.5  # share of characters but white space
MOST_COPIED = 0.8  # share of distinct words that stand in the text
MAY_COPY = ("keywords",)
"""Task types whose answers are words of the text."""
WORD = re.compile(r"\w+")
OPENS, CLOSES = "<think>", "</think>"
"""Around the thoughts of a reasoning model, as Qwen3 and DeepSeek-R1 write them."""


def without_thoughts(answer: str) -> str:
    """Return what an answer says behind the thoughts in front of it; one whose thoughts do not end stays.

    Where a chat template opens the thoughts in the prompt, only their end stands in the answer.
    """
    thoughts, closed, rest = answer.partition(CLOSES)
    in_front = thoughts.lstrip().startswith(OPENS) or OPENS not in thoughts
    return rest.strip() if closed and in_front else answer


def fault(order: Order, answer: str, cut: bool) -> str | None:
    """Return why an answer is rejected; None where it is a row. `cut` says that it was not finished."""
    words = WORD.findall(answer.casefold())
    if OPENS in answer or CLOSES in answer:
        return "thinks aloud"
    if cut:
        return "cut off"
    if not words:
        return "empty"
    if len(words) < order.min_words:
        return "too short"
    instruction = prompts.named(order.task_type).prompt(order.domain).partition("\n")[0]
    if LEAKS.search(answer[:HEAD]) or instruction[:40].casefold() in answer.casefold():
        return "speaks of the instruction"
    if _repeated(words) > MOST_REPEATED:
        return "repeats itself"
    visible = [character for character in answer if not character.isspace()]
    if sum(map(str.isalpha, visible)) < LEAST_LETTERS * len(visible):
        return "not letters"
    own = set(words)
    shared = len(own & set(WORD.findall(order.text.casefold()))) / len(own)
    if shared > MOST_COPIED and order.task_type not in MAY_COPY:
        return "copies the text"
    return None


def _repeated(words: Sequence[str]) -> float:
    """Return the share of trigrams that stood there before, without the numbers that lists count by."""
    said = [word for word in words if not word.isdecimal()]
    trigrams = list(zip(said, said[1:], said[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
