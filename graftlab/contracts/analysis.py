"""What an analysis is, and what it is asked about."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from graftlab.contracts.arrays import Floats

Part = TypeVar("Part")

# Shapes: O and I rows and columns of a weight, as it lies in the model; R rank. N texts, D features.

WEIGHT, CHANGE, MOVE = "weight", "change", "move"
"""What a quantity is a number of: the weight's spectrum, its change's, or both and the weight before."""

TRAINABLE, GLOBAL = "trainable", "global"
"""Of gradients: of the parameters that were trained (beside `weight`, of whole weights); of all together."""


NO_CHANGE = "no_change"
"""The kind of the error of a subject whose method changes no weight that it could name."""


NEW = "new: nothing before"
"""What is noted of a weight that the model did not have before."""


class Change(NamedTuple):
    """How far training has moved one weight from where it was before."""

    name: str
    """The weight's, in the plain model: `encoder.layer.0.attention.self.query.weight`."""
    left: "Tensor"
    """(O, R), or the whole change (O, I) or (O,) where `right` is None."""
    right: "Tensor | None"
    """(R, I): the change is exactly left @ right."""
    new: bool = False
    """Whether the model did not have the weight before, as a new head: `left` is then the weight itself."""


class About(NamedTuple):
    """Which model at which moment: the columns that tables begin with."""

    model: str
    """What it is called among those that are analysed together."""
    checkpoint: int | None = None
    """Training steps taken; None where that is not known."""
    method: str | None = None
    """How it was adapted: lora, full, ..."""
    rank: int | None = None
    """Of the adapter, where it has one."""
    task_type: str | None = None
    """The family of tasks (similar, dissimilar) or the task's name, by which figures are grouped."""


class Differentiable(NamedTuple):
    """A model whose loss can be derived: in eval mode, so that it is the same every time."""

    model: "nn.Module"
    """Those of its parameters train that training has trained."""
    loss: "Callable[[], Tensor]"
    """Computes a mean loss on the sample, by a forward pass."""
    sample: str
    """What the loss is of: `sentence`, or `3 examples of validation`."""


class Merged(NamedTuple):
    """A plain model whose weights hold what training has changed, in eval mode."""

    model: "nn.Module"
    loss: "Callable[[], Tensor]"
    """Computes a mean loss on the sample, by a forward pass with the weights as they are then."""
    sample: str
    """What the loss is of."""
    text_loss: "Callable[[Sequence[str]], float] | None"
    """Computes the mean loss of a token (nats) in texts; None of a model that writes none."""


class Texts(NamedTuple):
    """A sample of texts, the same for all models that are analysed together."""

    values: "Sequence[str]" = ()
    source: str = ""
    """Where they are from, as a table says it."""


class Subject(Protocol):
    """One model at one moment: nothing is computed, or read, before it is asked for."""

    @property
    def about(self) -> About:
        """Which it is."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names of the weights that were changed, or are new, in the model's order.

        Raises:
            ConfigError: the method does not say how it changes the backbone's weights (`NO_CHANGE`).
        """
        ...

    def change(self, name: str) -> Change:
        """Return the change of one of them. Nothing of it is kept here."""
        ...

    def base(self, name: str) -> "Tensor | None":
        """Return a weight as it was before, read from few bits where it is quantized; None where it is not
        at hand, or where there was none: a new head."""
        ...

    def recorded(self, table: str) -> Sequence[Mapping[str, Any]]:
        """Return the lines of a table that its run wrote while it trained (`analysis:` of a run file), those
        of every step; none where there are none."""
        ...

    def differentiable(self, examples: int) -> Differentiable | str:
        """Return its model with a loss: of so many examples of its task's validation split, or with 0 of one
        sentence; or why there is none. It is loaded anew, and held only by whoever asks."""
        ...

    def merged(self, examples: int) -> Merged | str:
        """Return the plain model with the change in its weights, and its losses; `examples` as above, or why
        there is none."""
        ...

    def activations(self, texts: Sequence[str], before: bool = False) -> "Sequence[Floats] | str":
        """Return (N, D) what goes into its first block, then what comes out of each block, a row a text: the
        mean over its tokens. With `before`, of the model as it was before training. Or why there are none."""
        ...


class Quantity(Protocol):
    """A number of a weight that was changed: a module of `graftlab/quantities`, a column of the spectra."""

    OF: ClassVar[tuple[str, ...]]
    """`weight`: of the weight's singular values, a column of the quantity's name. `change`: of its change's,
    a column `change_NAME`. `move`: of both and the weight before, a column of its name."""
    NULL: bool = True
    """Whether it says something beside a random change of the same rank and norm: a column `null_...`. Of a
    weight alone there is none."""

    @abstractmethod
    def value(self, of: Any) -> float | int | None:
        """Return it, None where it is undefined: of a `graftlab.spectra.Spectrum`, or of a `Moved`. What it
        returns by its annotation, int or float, is the column's type."""
        ...


class Kept(Protocol):
    """Results of earlier calls, by a hash of all that they depend on."""

    def get(self, key: str) -> Any:
        """Return what was put there as JSON; None where nothing was."""
        ...

    def put(self, key: str, value: object) -> None:
        """Keep a value of JSON, whole or not at all."""
        ...

    def arrays(self, key: str) -> "dict[str, NDArray[np.float64]] | None":
        """Return arrays that were put there; None where none were."""
        ...

    def put_arrays(self, key: str, values: "dict[str, NDArray[np.float64]]") -> None:
        """Keep arrays, whole or not at all."""
        ...


@dataclass(frozen=True)
class Asked:
    """How an analysis is to be carried out."""

    top: int = 10
    """Singular values in the table, and vectors in subspaces."""
    full: bool = False
    """Whether similarities go over all singular vectors, as in the source, and not over the top ones."""
    null: bool = True
    """Whether each number stands beside that of a random change."""
    epsilon: float = 0.5
    """Largest cosine with every vector from before at which a direction is an intruder."""
    examples: int = 0
    """Examples of a run's own validation split on which losses are taken; 0 for one sentence."""
    texts: Texts = field(default_factory=Texts)
    """General texts: activations are compared over them, and their loss is what is forgotten."""
    seed: int = 0
    """Of random changes, and of what else is drawn."""
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    kept: Kept | None = None
    said: Callable[[int, int], None] = lambda _done, _parts: None
    """Called with how many parts of the work are done, of how many."""
    vectors: "Callable[[About, str, Mapping[str, NDArray[np.float64]]], None] | None" = None
    """Given the singular values and top vectors of each line of the spectra, by its model and weight; None
    where nobody wants them."""

    def each(self, parts: Sequence[Part]) -> Iterator[Part]:
        """Yield the parts of the work (weights, models) in turn, and say when each of them is done."""
        for done, part in enumerate(parts, start=1):
            yield part
            self.said(done, len(parts))


class Analysis(Protocol):
    """A question asked of trained weights, answered as one table: a module of `graftlab/analyses`."""

    Row: type[Any] | None = None
    """A line of the table: a NamedTuple of texts, numbers and truths, or None where one is undefined."""
    FILE: str | None = None
    """Where the table goes, without an ending; its name unless given. Figures go into that file's folder."""

    SHOWN: tuple[str, ...] = ()
    """Columns that a terminal has room for, of a wide table; all unless given."""

    def row(self, asked: Asked) -> type[Any]:
        """Return the class of the lines where it depends on what is asked: else `Row`."""
        assert self.Row is not None, "an analysis has Row, or row(asked)"
        return self.Row

    @abstractmethod
    def rows(self, subjects: Sequence[Subject], asked: Asked) -> Iterator[Any]:
        """Yield the lines of the table. `Raises:` ConfigError: a subject lacks what is asked for."""
