"""The largest single entry of each weight's change."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from graftlab.contracts import Asked, Subject


class Row(NamedTuple):
    """What one weight has come to."""

    model: str
    checkpoint: int | None
    weight: str
    largest: float | None
    """Its absolute value; None where it is not finite."""


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield one line for each weight that was changed, of each model at each checkpoint."""
    for subject in asked.each(subjects):  # says how far it is
        for name in subject.names():
            change = subject.change(name)
            whole = change.left if change.right is None else change.left @ change.right
            largest = float(whole.abs().max())
            finite = largest if largest == largest else None
            yield Row(subject.about.model, subject.about.checkpoint, name, finite)
