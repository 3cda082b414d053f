"""What a method may do between the loop's steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graftlab.rundir.lines import Lines, NoLines

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def _nothing(scalars: dict[str, float]) -> None:
    """Tell nobody."""


def _stay(tensors: "Sequence[Tensor]") -> None:
    """Leave them: there is one process."""


def _one(step: int) -> int:
    return 1


def _no_lines(name: str) -> NoLines:
    return NoLines()


@dataclass(frozen=True)
class Training:
    """What a hook may touch while the loop runs."""

    model: "nn.Module"
    """The adapted model, not wrapped for several processes."""
    optimizer: "torch.optim.Optimizer"
    num_steps: int
    """Optimizer steps of the whole run."""
    steps_per_epoch: int
    parameters_changed: Callable[[], None]
    """Tell the loop that other parameters train from the next step on: it renews groups and wrapping."""
    agree: Callable[[bool], bool] = bool
    """Return the main process's decision on every process: a decision from floats is to be one decision.
    All processes must call it, at the same moment of the same step."""
    add: "Callable[[Sequence[Tensor]], None]" = _stay
    """Replace tensors, gradients of a part of a step's examples, by their sums over all processes. All
    must call it, at the same moment."""
    tell: Callable[[dict[str, float]], None] = _nothing
    """Log scalars at once, under the last step that is done: for what happens once and not each step."""
    probe: Callable[[], float] | None = None
    """Return the mean loss of a fixed batch of training examples, without dropout; None where there is
    none. It leaves model and randomness as they are."""
    micro_batches: Callable[[int], int] = _one
    """Return in how many micro-batches a step's examples go through on this process."""
    folder: Path | None = None
    """The run's directory, for files of the hook's own; None in a process that writes nothing."""
    lines: Callable[[str], Lines | NoLines] = _no_lines
    """Open `NAME.jsonl` in the run's directory, a table that grows: the loop closes it. A resume cuts it back
    to where its checkpoint was written, and is not exact where it has been changed since."""
    task_gradients: "Callable[[], Mapping[str, Mapping[str, Tensor]]]" = dict
    """Return each task's part of this step's gradient by the parameter's name, summed over all micro-batches
    and processes: of a mixture, from `before_optimizer_step` on, where `wants_task_gradients` has said so."""


@dataclass(frozen=True)
class MicroBatch:
    """What has just gone through the model at once: after its forward pass, before its backward pass."""

    step: int
    number: int
    """Of the step's micro-batches on this process, from 0."""
    batch: "Mapping[str, Tensor]"
    """What the task was given, labels among it, on the model's device."""
    outputs: object
    """What the model has returned for it, with its graph; of a language model that is trained on some
    tokens, `logits` may be of those only."""
    total: int
    """By what the losses summed over the effective batch are divided: examples, or trained tokens."""
    examples: int
    """How many examples the effective batch has, over all micro-batches and processes."""

    def per_example(self, summed: "Tensor") -> "Tensor":
        """Return a sum over examples as a loss that comes to a mean over examples, whatever the task's own
        loss is divided by."""
        return summed * (self.total / self.examples)


@runtime_checkable
class AddsLosses(Protocol):
    """A task, or a hook, that adds losses which read what goes through the model."""

    def micro_batch_losses(self, micro: MicroBatch) -> "dict[str, Tensor]":
        """Return extra losses of one micro-batch by name: each a sum over it, as the task's own loss is.

        They are divided by what that is divided by and added to it; each is logged apart, under its name,
        as its mean since the last line. So they come to the same under any accumulation, and of several
        processes each is asked for its own micro-batches.
        """
        ...


class Hook:
    """The loop's moments; each does nothing unless a method overrides it.

    A base class with bodies, against the house rule, because most hooks need two moments of eleven.
    Steps count from 1. Scalars that a moment returns are logged under their names.
    """

    def on_train_start(self, training: Training) -> None:
        """Before the first step, and again after a resume (then `load_state_dict` follows)."""

    def on_step_start(self, step: int) -> None:
        """Before a step's first forward pass; called again if memory ran out and the step is replayed."""

    def loss_terms(self, step: int) -> "dict[str, Tensor]":
        """Return extra losses, added once per effective batch and logged apart.

        Of several processes only the main one is asked: gradients are summed over them.
        """
        return {}

    def micro_batch_losses(self, micro: MicroBatch) -> "dict[str, Tensor]":
        """Return extra losses that read a micro-batch and what the model has made of it: each a sum over it,
        as the task's own loss is. They are divided by what that is divided by, on every process, and logged
        apart. What else of the forward pass they need, forward hooks on modules of `Training.model` keep."""
        return {}

    def after_backward(self, step: int, micro_step: int) -> None:
        """After each micro-batch's backward pass; of several processes each has the gradients of its own
        share here, and nothing may be asked of the others."""

    def wants_task_gradients(self, step: int) -> bool:
        """Say, before a step of a mixture, whether its gradient is wanted task by task: a copy of each is
        kept then. All processes must say the same."""
        return False

    def before_optimizer_step(self, step: int) -> dict[str, float]:
        """All gradients are there, the same on every process, unscaled and before clipping."""
        return {}

    def after_optimizer_step(self, step: int) -> dict[str, float]:
        """The weights have moved; the gradients are still there. Not called for a skipped step."""
        return {}

    def rate_factor(self, step: int) -> float:
        """Return by what this step's learning rate is multiplied."""
        return 1.0

    def facts(self) -> dict[str, object]:
        """Return what is to be known of the run afterwards, as JSON: it stands in the result."""
        return {}

    def on_train_end(self) -> None:
        """After the last step."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs: nested dicts of tensors, numbers, strings and lists."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""


def adding(hooks: Sequence[Hook], task: object) -> tuple[AddsLosses, ...]:
    """Return those that add losses which read micro-batches: hooks in their order, then the task."""
    own = [h for h in hooks if type(h).micro_batch_losses is not Hook.micro_batch_losses]
    return (*own, task) if isinstance(task, AddsLosses) else tuple(own)
