"""What each kind of part provides: a Protocol a kind, kept by the module that a name leads to.

What is abstract here, or has no value, a module must have. The rest it may leave out: then what stands here
counts. `graftlab.registry.find` gives a module as its Protocol.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from graftlab.contracts.hook import Hook
from graftlab.contracts.records import (
    Backbone,
    Controls,
    Data,
    Prediction,
    Problem,
    Row,
    Score,
    Setting,
    Task,
)
from graftlab.errors import (
    Fault,
)

if TYPE_CHECKING:
    from graftlab.config import Paths, Section
    from graftlab.contracts.arrays import Floats


class HookKind(Protocol):
    """What a run file brings between the loop's steps: a module of `graftlab/hooks`."""

    Config: "type[Section]"
    """The fields of its entry in `hooks:`, beside `name`."""
    OBSERVES: bool
    """It changes neither weights nor randomness: all that a run leaves is the same but for its scalars."""
    example: "Callable[[Path], Section] | None" = None
    """Returns a section for the contract tests, where the defaults want files from elsewhere."""
    check: "Callable[[Any, bool], Sequence[Fault]] | None" = None
    """Returns what of its section does not fit the task, each with its key, before anything is loaded: given
    the section, and whether the task is a mixture."""

    @abstractmethod
    def make(self, config: Any, setting: Setting) -> Hook:
        """Return the hook for a run; `setting` has a seed of its own. Its scalars are named `NAME/...`."""


class BackboneKind(Protocol):
    """Where pretrained models of a kind come from: a module of `graftlab/backbones`."""

    Config: "type[Section]"
    """Its section of a run file, without `kind`."""
    example: "Callable[[Path], Section] | None" = None
    """Returns a section for the contract tests; it writes a small model into the folder."""

    @abstractmethod
    def load(self, config: "Section", problem: Problem, seed: int, meta: bool = False) -> Backbone:
        """Return the model, with a head for `problem` that depends on the seed alone. `meta` builds it on the
        meta device, without weights."""

    def check(self, config: "Section") -> list[Fault]:
        """Return problems that can be found before anything is loaded."""
        return []


class TaskPart(Protocol):
    """One of the tasks that a task is made of: a section of a run file, resolved."""

    @property
    def module(self) -> "TaskKind": ...
    @property
    def config(self) -> Any: ...


class TaskKind(Protocol):
    """How rows become examples, a loss and predictions: a module or package of `graftlab/tasks`."""

    Config: "type[Section]"
    """Its section of a run file."""
    BACKBONES: tuple[str, ...]
    """Kinds of backbone that it fits."""
    FORMS: Mapping[str, "Callable[[Path], Section]"] = {}
    """Further examples for the contract tests, of other forms that it takes, by name."""
    VECTORS: bool = False
    """Its rows stand for vectors: a batch has `vectors` (N, D), and `vector_mask` (N, L) says where in the
    prompts they go. Only a method that reads them fits."""

    @abstractmethod
    def problem(self, config: "Section") -> Problem:
        """Return what the model has to put out. `Raises:` DataError: it cannot be told from here."""

    @abstractmethod
    def check(self, config: "Section") -> list[Fault]:
        """Return what is wrong with local files and columns; nothing is imported or downloaded."""

    @abstractmethod
    def read(self, config: "Section", paths: "Paths", seed: int) -> Data:
        """Return the rows of each split. `Raises:` ConfigError, DataError, Refused."""

    @abstractmethod
    def read_inputs(
        self, config: "Section", source: str | Path | Sequence[Any], **of: Any
    ) -> list[Row]:
        """Return new inputs as rows without labels. `Raises:` DataError: one cannot be read."""

    @abstractmethod
    def bind(self, data: Data, backbone: Backbone, config: "Section", seed: int) -> Task:
        """Return the rows bound to the backbone's processor. `Raises:` ConfigError, DataError."""

    @abstractmethod
    def example(self, folder: Path) -> "Section":
        """Return a section that reads rows of this kind, written into the folder: what `graftlab plan` binds
        where the data are elsewhere, and what the contract tests bind.

        Eight train rows at least, of which no two are alike, and some of another split.
        """

    controls: "Callable[[Data, str, Backbone, Any, int], Controls] | None" = None
    """Returns the rows of a split asked otherwise too, `controls(data, split, backbone, config, seed)`: do
    models go by what they are given? `Raises:` DataError."""

    def backbones(self, config: "Section") -> tuple[str, ...]:
        """Return the kinds of backbone that fit this section."""
        return self.BACKBONES

    def packs(self, config: "Section") -> bool:
        """Say whether several examples stand in one row of tokens."""
        return False

    tagged: Callable[[Row, str], Row] | None = None
    """Returns a row that says to which task of a mixture it belongs, where rows can."""
    with_parts: "Callable[[Any, Mapping[str, TaskPart]], Section] | None" = None
    """Of a kind that is made of several tasks: returns the section with them resolved, by name."""


class Metric(Protocol):
    """How good predictions are: a module of `graftlab/metrics`."""

    HIGHER_IS_BETTER: bool
    """Whether more of it is better."""
    READS: Literal["classes", "tokens", "texts", "programs"] = "classes"
    """What of a prediction it needs: `classes` (labels and predictions that are equal or not, or numbers),
    `tokens` (`loss`, `count` and `correct` of the trained ones), `texts` (what the model wrote, and a
    reference) or `programs` (whether what it wrote `passed` its tests)."""
    PROBLEMS: tuple[str, ...] = ("classes", "regression")
    """Whose labels it is for, where it reads classes: `classes`, or `regression` for scores."""
    RANGE: tuple[float, float] = (-1.0, 1.0)
    """Between what its values lie."""
    PACKAGE: str | None = None
    """What must be installed for it beyond graftlab itself."""
    READS_INPUTS: bool = False
    """Each prediction has `inputs` besides: what the model was asked, as the task reads it (`text` and
    `pair`; `fields` or `messages`; `question` and `choices`; `image`)."""
    Config: "type[Section] | None" = None
    """Its settings, if it takes some: numbers, texts and truths, each with a usual value."""

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], *config: Any) -> Score:
        """Return the value with its standard error, or why there is none; of a metric with settings `score(
        predictions, config)`, and so for its other functions. `Raises:` DataError."""

    def num_classes(self, *config: Any) -> int | None:
        """Return for how many classes it is, and no more; None for any number."""
        return None

    each: "Callable[..., list[float | None]] | None" = None
    """Returns the value of each prediction, `each(predictions)`, None where it is not defined."""
    AVERAGE: Literal["mean", "median"] = "mean"
    """What the score is of the values of `each`, where it has it."""
    explain: Callable[..., dict[str, object]] | None = None
    """Returns how it came to score one prediction, `explain(row)`, as JSON."""
    example: Callable[[], list[Prediction]] | None = None
    """Returns predictions for the contract tests, ten at least, some right and some wrong; for a metric that
    wants others than its `READS` stands for."""


class LayerScore(Protocol):
    """How much of the label a layer's states show: a module of `graftlab/selection/scores`."""

    @abstractmethod
    def score(self, sample: Any, weights_BN: "Floats") -> "Floats":
        """Return (B,) values, one for each row of example weights; more is better.

        The sample is a `graftlab.selection.scores.Sample`. `Raises:` its `Undefined`.
        """
