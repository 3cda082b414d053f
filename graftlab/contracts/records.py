"""The records that parts hand to each other: a backbone, a task, a method's setting and its result."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from graftlab.contracts.hook import Hook
from graftlab.rundir.records import ScoreRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

Batch = dict[str, "Tensor"]
OF_TASK = "task/"
"""In a batch of a task made of several, `task/NAME` (N,) says which rows are NAME's; no model reads it."""
Row = dict[str, Any]
"""One example before it becomes tensors: `index` (its row in the source), the inputs, and `label`."""
Prediction = dict[str, Any]
"""What `Task.predict` returns of one example."""


def inputs_of(row: Row) -> dict[str, object]:
    """Return what of a row is asked, without what it is known by."""
    return {name: value for name, value in row.items() if name not in ("index", "label", "task")}


OF_VECTORS = ("vector", "made_with")
"""What a row that stands for a vector is asked with besides: its numbers (D,), and how they were made. It is
for metrics; nobody reads it."""
USUAL_METRICS: Mapping[str, tuple[str, ...]] = {
    "classes": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman"),
}
"""The metrics of a task whose section names none, by what its model puts out."""


@dataclass(frozen=True)
class Problem:
    """What a model has to put out."""

    kind: Literal["classes", "regression", "tokens"]
    labels: tuple[str, ...] = ()
    """Names of the classes, or of the choices that tokens are scored for, in the order of their integers;
    empty for regression and for free text."""
    parts: "tuple[tuple[str, Problem], ...]" = ()
    """Of several tasks in one: each one's name and its own problem. `labels` are then the head's."""

    @property
    def num_outputs(self) -> int:
        return len(self.labels) if self.kind == "classes" else 1

    def of(self, row: Mapping[str, object]) -> "Problem":
        """Return the problem that a row or a prediction belongs to: of its `task`, if there are several."""
        return dict(self.parts)[str(row["task"])] if self.parts else self

    def as_json(self) -> dict[str, object]:
        """Return what `environment.json` keeps of it."""
        parts = {name: own.as_json() for name, own in self.parts}
        record = {"problem": self.kind, "labels": list(self.labels)}
        return record | ({"parts": parts} if parts else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Problem":
        """Return what `as_json` was made of."""
        parts = [(name, cls.from_json(own)) for name, own in record.get("parts", {}).items()]
        return cls(record.get("problem", "classes"), tuple(record["labels"]), tuple(parts))


@dataclass(frozen=True)
class Data:
    """A task's rows, read and split, before any tokenizer has seen them."""

    splits: Mapping[str, Sequence[Row]]
    """`train`, `validation`, `test` (each may be empty but train), or `input` for new examples."""
    problem: Problem
    record: Mapping[str, Any] = field(default_factory=dict)
    """Source, fingerprint (sha256 over the rows used), sizes, dropped rows with reasons."""
    keys: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """For each row of a split, bytes that equal inputs share, whatever task they are of: by them a mixture
    keeps what one task trains on apart from what another is scored on. Rows without are taken to be unlike
    any other task's."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained model with what turns examples into its inputs."""

    model: "nn.Module"
    kind: str
    """`encoder`, `decoder`, `vision` or `tiny`."""
    processor: Any
    """The tokenizer, or the image processor."""
    head: tuple[str, ...]
    """Names of the modules that are new for the task and train with every adapter; empty for tokens."""
    max_length: int | None
    """Longest input in tokens; None for images."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: source, revision, sha256 of each weight file, notes said to the user."""


class Task(Protocol):
    """Data bound to a backbone's processor: examples as tensors, a loss and predictions."""

    @property
    def problem(self) -> Problem: ...
    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of metrics; the first one chooses the best checkpoint unless the run file says otherwise."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """What binding has done to the examples, as JSON: `max_length`, how many were `truncated`."""
        ...

    def size(self, split: str) -> int:
        """Return the number of examples of a split; 0 where there is none."""
        ...

    def lengths(self, split: str) -> Sequence[int]:
        """Return the cost of each example, so that batches can be made of like ones."""
        ...

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        """Return examples as CPU tensors. Draws (augmentation) come from (seed, epoch, index);
        `epoch=None` draws nothing, as evaluation wants."""
        ...

    def inputs(self, split: str, index: int) -> dict[str, object]:
        """Return what an example asks, as the row that it was made of has it: without `index` and `label`."""
        ...

    def source_row(self, split: str, index: int) -> int:
        """Return which row of its source an example was made of, from 0."""
        ...

    def count(self, batch: Batch) -> int:
        """Return by how much the summed loss is divided: examples, or trained tokens."""
        ...

    def loss(self, model: "nn.Module", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        """Return the loss summed over the batch (a scalar with gradient), in float32."""
        ...

    def predict(self, model: "nn.Module", batch: Batch) -> list[Prediction]:
        """Return per example: `label` (None where unknown), `prediction`, `probabilities`
        (classes and choices), `loss` (None where the label is unknown), `count` where that loss is a
        sum over several (trained tokens), `task`, its name, where the task is made of several, and
        `source`, a number or a text, where several examples are about one thing: they are no sample. The
        model is in eval mode."""
        ...


class Mixture(Task, Protocol):
    """A task made of several. What goes through the model at once is of one of them."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def parts(self, split: str) -> "NDArray[np.int64]":
        """Return of each example the task that it belongs to, by its place in `names`."""
        ...

    def draws(self, seed: int, epoch: int) -> "NDArray[np.int64]":
        """Return which train examples an epoch sees, in random order: as many as there are, some of
        them more than once and some not at all. A function of (seed, epoch)."""
        ...


class Writer(Task, Protocol):
    """A task whose answers are texts that a model has to write, which takes long: done at the end, and while
    training for a few examples where that is asked.

    `metrics` read what `predict` returns, at every evaluation; `prediction` is None there.
    """

    @property
    def final_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that read the written texts."""
        ...

    def writes(self, split: str) -> bool:
        """Say whether texts are written for a split at the end."""
        ...

    @property
    def at_evaluations(self) -> Sequence[int]:
        """Which validation examples texts are written for at every evaluation: `final_metrics` of these are
        scored there."""
        ...

    def complete(self, model: "nn.Module", split: str, indices: Sequence[int]) -> list[Prediction]:
        """Write an answer for each example; return per example `prediction`, the text, and what else is
        to be known of it. The model is in eval mode; tensors go to its device."""
        ...


class Controls(NamedTuple):
    """The examples of a split asked in several ways, in one order and with the same answers wanted."""

    tasks: Mapping[str, "Task | str"]
    """By name, the first as the model was trained to be asked; a text says why there is none of that name."""
    sources: Sequence[str]
    """Of each example its source: those of one source are no independent samples."""
    kinds: Sequence[str]
    """Of each example its task type."""
    made_of: Mapping[str, str] = {}
    """By name, a hash of what a task shows beside the split's own rows."""


def as_mixture(task: Task) -> Mixture | None:
    """Return a task that is made of several as that; None for one that is not."""
    return cast("Mixture", task) if hasattr(task, "draws") else None


def parts_of(task: Task, split: str) -> "NDArray[np.int64] | None":
    """Return what `Mixture.parts` does; None for a task that is one."""
    mixture = as_mixture(task)
    return mixture.parts(split) if mixture else None


def as_writer(task: Task) -> Writer | None:
    """Return a task whose answers a model has to write as that; None for one whose are not."""
    return cast("Writer", task) if hasattr(task, "complete") else None


@dataclass(frozen=True)
class Setting:
    """What a method may know of the run that it is attached for."""

    seed: int
    num_steps: int
    """Optimizer steps of the whole run."""
    steps_per_epoch: int
    problem: Problem
    batches: "Callable[[], Iterator[Batch]]"
    """The training batches in run order. What they draw comes from (seed, epoch, index): the run's
    randomness stays as it is."""
    restored: Mapping[str, Any] | None = None
    """What this method's `Attached.record` held when the run began, if the run is being resumed (or an
    adapter loaded): attach without computing anything; the tensors are put back afterwards."""
    gradient_checkpointing: bool = False
    vectors: Mapping[str, Any] | None = None
    """Of a task whose rows stand for vectors, what it records of them: `width`, `num_tokens` (positions that
    a vector has in a prompt), and `origin`, what they were made with."""


@dataclass(frozen=True)
class Attached:
    """A model with its adapter in place."""

    model: "nn.Module"
    hooks: tuple[Hook, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    """Learning-rate multipliers by parameter name, where they are not 1 (LoRA+)."""
    computed: tuple[str, ...] = ()
    """Names of frozen tensors that attaching has changed or made: kept with step 0, read back on resume."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """JSON facts that a resumed run needs to attach alike (EVA's ranks)."""
    positions: int = 0
    """How many of the model's positions the method takes for itself (virtual tokens)."""


class Score(NamedTuple):
    """A metric's value and how far chance may have moved it."""

    value: float | None
    """None where the metric is not defined."""
    standard_error: float | None
    """Of sampling the examples; None where it is not defined."""
    reason: str | None
    """Why the value, or else the standard error, is None."""
    details: Mapping[str, object] | None = None
    """What else there is to say, as JSON: examples left out, how often each rule found an answer."""

    def as_json(self) -> ScoreRecord:
        """Return what result.json has of it."""
        return ScoreRecord(
            value=self.value,
            standard_error=self.standard_error,
            reason=self.reason,
            details=self.details,
        )
