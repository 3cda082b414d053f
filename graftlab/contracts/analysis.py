"""What an analysis is, and what it is asked about."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

# Shapes: O and I rows and columns of a weight, as it lies in the model; R rank.


class Change(NamedTuple):
    """How far training has moved one weight from where it was before."""

    name: str
    """The weight's, in the plain model: `encoder.layer.0.attention.self.query.weight`."""
    left: "Tensor"
    """(O, R), or the whole change (O, I) or (O,) where `right` is None."""
    right: "Tensor | None"
    """(R, I): the change is exactly left @ right."""


class Subject(Protocol):
    """What an analysis may ask about: nothing is computed, or read, before it is asked for."""

    @property
    def name(self) -> str:
        """What stands in titles."""
        ...

    def changes(self) -> Iterator[Change]:
        """Yield the change of each weight that was adapted, one in memory at a time.

        Raises:
            ConfigError: the method does not say how it changes the backbone's weights.
        """
        ...

    def base(self, name: str) -> "Tensor | None":
        """Return a weight as it was before, read from few bits where it is quantized; None where it is not
        at hand."""
        ...


class Analysis(Protocol):
    """A question asked of trained weights, answered as one table: a module of `graftlab/analyses`."""

    Row: type[Any]
    """A line of the table: a NamedTuple of texts, numbers and truths, or None where one is undefined."""

    @abstractmethod
    def rows(self, subject: Subject) -> Iterator[Any]:
        """Yield the lines of the table. `Raises:` ConfigError: the subject lacks what is asked for."""
