"""Ranks that say what is not known: methods that cannot be told apart share them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Rank(NamedTuple):
    """Between which places a method stands."""

    best: int
    """One more than the number of methods that are seen to be better."""
    worst: int
    """The number of all methods less those that are seen to be worse."""


def ranks(names: Sequence[str], seen: Iterable[tuple[str, str]]) -> dict[str, Rank]:
    """Return each name's places; `seen` are pairs (better, worse) whose difference is beyond its interval."""
    pairs = set(seen)
    return {
        name: Rank(
            1 + sum(worse == name for _, worse in pairs),
            len(names) - sum(better == name for better, _ in pairs),
        )
        for name in names
    }
