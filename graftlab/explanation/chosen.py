"""Subjects of an analysis of which only some weights count, or none."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftlab.contracts import About, Change, Differentiable, Merged, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.contracts.arrays import Floats


def named(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a pattern names the weight, or its module: `q_proj`, `*.layers.0.*`."""
    parts = name.split(".")
    return any(p in parts or fnmatch.fnmatchcase(name, p) for p in patterns)


class Chosen:
    """A subject of which only weights with certain names count."""

    def __init__(self, subject: Subject, patterns: Sequence[str] = ()) -> None:
        self._subject, self._patterns = subject, patterns

    @property
    def about(self) -> About:
        return self._subject.about

    def names(self) -> Sequence[str]:
        return [name for name in self._subject.names() if named(name, self._patterns)]

    def change(self, name: str) -> Change:
        return self._subject.change(name)

    def base(self, name: str) -> "Tensor | None":
        return self._subject.base(name)

    def recorded(self, table: str) -> Sequence[Mapping[str, Any]]:
        return self._subject.recorded(table)

    def differentiable(self, examples: int) -> Differentiable | str:
        return self._subject.differentiable(examples)

    def merged(self, examples: int) -> Merged | str:
        return self._subject.merged(examples)

    def activations(self, texts: Sequence[str], before: bool = False) -> "Sequence[Floats] | str":
        return self._subject.activations(texts, before)


class Unchanged(Chosen):
    """A subject whose method changes no weight that it could name."""

    def names(self) -> Sequence[str]:
        return ()
