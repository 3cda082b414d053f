"""The largest single entry of each weight's change."""

from collections.abc import Iterator
from typing import NamedTuple

from graftlab.contracts import Subject


class Row(NamedTuple):
    """What one weight has come to."""

    weight: str
    largest: float | None
    """Its absolute value; None where it is not finite."""


def rows(subject: Subject) -> Iterator[Row]:
    """Yield one line for each weight that was adapted."""
    for name, left, right in subject.changes():
        change = left if right is None else left @ right
        largest = float(change.abs().max())
        yield Row(name, largest if largest == largest else None)
