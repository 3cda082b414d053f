"""A run's first steps on its longest batch, by the run's own loop: on fake tensors, or really."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from graftlab.contracts import Attached, Batch, Task, parts_of
from graftlab.planning import blocks, live_tensors, quantized
from graftlab.planning.live_tensors import Live
from graftlab.rundir.lines import NoLines
from graftlab.rundir.run import Run
from graftlab.training import resume
from graftlab.training.loop import Loop
from graftlab.training.parts import Parts
from graftlab.training.signals import Signals
from graftlab.weights import surgery

if TYPE_CHECKING:
    from accelerate import Accelerator

    from graftlab.runfile import RunFile
    from graftlab.training.config import Config

MICRO_BATCHES = 2  # of a step: gradients of the first are there while the second goes through


class Longest:
    """A task of its longest training examples only, as many as one step takes."""

    def __init__(self, task: Task, count: int, live: Live) -> None:
        self.task, self.live = task, live
        self._lengths = task.lengths("train")
        order = sorted(range(len(self._lengths)), key=lambda index: -self._lengths[index])
        self._chosen = [order[place % len(order)] for place in range(count)]
        if (parts := parts_of(task, "train")) is not None:
            self.draws = None  # each of them comes once
            self.parts = lambda _: parts[self._chosen]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def size(self, split: str) -> int:
        return len(self._chosen) if split == "train" else self.task.size(split)

    def lengths(self, split: str) -> Sequence[int]:
        if split != "train":
            return self.task.lengths(split)
        return [self._lengths[index] for index in self._chosen]

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        wanted = [self._chosen[index] for index in indices]
        batch = self.task.batch("train", wanted, epoch)
        self.live.hold(batch.values(), live_tensors.INPUTS)
        return batch

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> torch.Tensor:
        loss = self.task.loss(model, batch, label_smoothing)
        if loss.requires_grad:
            loss.register_hook(lambda _: blocks.begin_backward(self.live))
        return loss


class Measured(NamedTuple):
    """What a step takes, in bytes."""

    peaks: live_tensors.Peaks
    """By segment of a training step."""
    evaluation: live_tensors.Peak
    """Of a forward pass without gradients."""
    checkpoint: int
    """All tensors of a checkpoint."""
    largest: tuple[tuple[str, int], ...]
    """The three largest parameters."""
    operations: int = 0

    @property
    def peak(self) -> live_tensors.Peak:
        return max(self.peaks.values(), key=lambda peak: peak.total)


def training_config(config: "Config", processes: int) -> "Config":
    """Return the section as one process sees it, cut to the micro-batches that a peak needs."""
    share = -(-config.batch_size // processes)
    micro = min(config.micro_batch_size or share, share)
    changes = {"batch_size": min(share, MICRO_BATCHES * micro), "micro_batch_size": micro}
    # workers and compilers do not change what is counted here
    return config.model_copy(update={**changes, "workers": 0, "compile": False})


def build_loop(
    file: "RunFile", training: "Config", attached: Attached, task: Task, head: tuple[str, ...],
    accelerator: "Accelerator",
) -> Loop:  # fmt: skip
    """Return the loop of a run that writes nothing."""
    parts = Parts(
        run=Run(Path("plan")),
        attached=attached,
        task=task,
        accelerator=accelerator,
        evaluate=lambda _: {},
        higher_is_better=True,
        best_by="loss",
        head=head,
        seed=file.seed,
        signals=Signals(),
    )
    return Loop(parts, training, NoLines(), NoLines())


def rehearse(loop: Loop, live: Live, evaluates: bool = True) -> Measured:
    """Return what a step takes once optimizer and hooks have their state.

    The optimizer's is made from gradients of zeros where no hook wants a whole step. Without `evaluates`
    the evaluation is not gone through.
    """
    model, hooks = loop.model, loop.parts.attached.hooks
    with live:
        live.hold(frozen(model), live_tensors.WEIGHTS)
        live.hold(surgery.trainable(model).values(), live_tensors.TRAINED)
        model.train()
        loop.begin()
        if hooks:
            _step(loop, 1)
        else:
            _make_state(loop)
        _hold_state(loop, live)
        gc.collect()
        live.forget()
        with blocks.watched(live, loop):
            _step(loop, 2)
        peaks = dict(live.peaks)
        _hold_state(loop, live)
        evaluation = _evaluation(loop, live) if evaluates else peaks["start"]
        tensors, _ = resume.gather(loop.state)
        size = sum(tensor.nbytes for group in tensors.values() for tensor in group.values())
    largest = sorted(model.named_parameters(), key=lambda item: -item[1].nbytes)[:3]
    return Measured(peaks, evaluation, size, tuple((name, p.nbytes) for name, p in largest))


def _step(loop: Loop, step: int) -> None:
    loop.stepper.step(step, loop.config.learning_rate)


def _make_state(loop: Loop) -> None:
    for parameter in surgery.trainable(loop.model).values():
        parameter.grad = torch.zeros_like(parameter)
    loop.optimizer.step()
    loop.optimizer.zero_grad(set_to_none=True)


def _hold_state(loop: Loop, live: Live) -> None:
    states = (state.values() for state in loop.optimizer.state.values())
    live.hold(_tensors([list(state) for state in states]), live_tensors.OPTIMIZER)
    held = [hook.state_dict() for hook in loop.parts.attached.hooks]
    weights = {id(p) for p in loop.model.parameters()}
    live.hold((t for t in _tensors(held) if id(t) not in weights), live_tensors.METHOD)


def _tensors(value: object) -> list[torch.Tensor]:
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def frozen(model: nn.Module) -> list[torch.Tensor]:
    """Return the tensors of a model that do not train."""
    weights = [p for p in model.parameters() if not p.requires_grad]
    return [*weights, *model.buffers(), *quantized.scales(model)]


def _evaluation(loop: Loop, live: Live) -> live_tensors.Peak:
    """Return the most bytes of a forward pass in eval mode, with as many examples as evaluation takes."""
    live.forget()
    live.segment("evaluation")
    live.making = live_tensors.ACTIVATIONS
    task, model, accelerator = loop.parts.task, loop.model, loop.parts.accelerator
    batch = task.batch("train", range(loop.asked_micro_batch_size), None)
    batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
    model.eval()
    with torch.no_grad(), accelerator.autocast():
        task.loss(model, batch)
    return live.peaks["evaluation"]
