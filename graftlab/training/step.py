"""One optimizer step: forward and backward over its micro-batches, clipping, the update."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.contracts import Batch, MicroBatch, adding
from graftlab.errors import OutOfMemory
from graftlab.seeds import mix, seed_everything
from graftlab.training import memory
from graftlab.training.config import Config
from graftlab.training.learner import Learner
from graftlab.training.order import Batches
from graftlab.training.parallel.processes import Processes
from graftlab.training.parts import Parts
from graftlab.training.tallies import Sums, Tally, joined, names_of
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger("graftlab")


@dataclass(frozen=True)
class Done:
    """What one step has come to."""

    loss: float
    """Summed over the effective batch of all processes."""
    count: int
    """What the sum is divided by: examples, or trained tokens."""
    gradient_norm: float
    """Before clipping."""
    applied: bool
    """False if loss or gradient was not finite: the weights have not moved."""
    learning_rate: float
    """With what hooks have made of it."""
    scalars: dict[str, float]
    sums: Sums = field(default_factory=dict)
    """Of a mixture: each task's loss, summed, and its count."""
    added: Sums = field(default_factory=dict)
    """Of losses that hooks or the task add: each, summed, and `count`."""


@dataclass
class _Passed:
    """What the passes of one step come to, but for the gradients."""

    loss_sum: "Tensor"
    """Of this process's examples."""
    count: int
    """Of all processes."""
    tally: Tally | None
    """Of a mixture."""
    terms: "dict[str, Tensor]" = field(default_factory=dict)
    """The hooks' extra losses of the whole step, on the main process."""
    added: "dict[str, Tensor]" = field(default_factory=dict)
    """Extra losses of this process's micro-batches, summed."""


class Stepper:
    """Makes steps. Its micro-batch halves, for good, when memory runs out."""

    def __init__(self, parts: Parts, config: Config, batches: Batches, learner: Learner) -> None:
        self.accelerator, self.task, self.seed = parts.accelerator, parts.task, parts.seed
        self.hooks, self.scaler = parts.attached.hooks, parts.accelerator.scaler
        self.config, self.batches = config, batches
        self.learner, self.optimizer = learner, learner.optimizer
        # None for one process alone, which asks nobody
        self.others = None if parts.processes.alone else parts.processes
        self.main, self.rank = parts.processes.main, parts.processes.share.rank
        self.names = names_of(parts.task)
        self.adding = adding(parts.attached.hooks, parts.task)
        self.task_gradients: Mapping[str, Mapping[str, Tensor]] = {}

    @property
    def model(self) -> "nn.Module":
        """The model as the forward pass sees it: compiled, wrapped, or plain."""
        return self.learner.forward

    def step(self, step: int, learning_rate: float) -> Done:
        """Make one step at this rate; replay it from its start with a smaller micro-batch if need be."""
        while True:
            passed, short = None, ""
            try:
                passed = self._backward(step)
            except RuntimeError as error:
                if not memory.ran_out(error):
                    raise
                short = str(error) or type(error).__name__
                if self.others and self.others.broken:  # the others wait for a shard
                    raise self._no_room(short, f"in step {step}") from error
            # outside `except`: the traceback holds the tensors
            if self.others:
                short = self._add_gradients(self.others, short)
            if passed and not short:
                break
            self._halve(step, short)
        try:
            return self._update(step, learning_rate, passed)
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
            # some weights may have moved already: the last checkpoint is where to go on from
            raise self._no_room(str(error), "in the optimizer's step") from error

    def _backward(self, step: int) -> _Passed:
        """Sum the gradients of this process's share of a step's examples."""
        import torch

        for hook in self.hooks:
            hook.on_step_start(step)
        batches = self.batches.get(step)
        counts = [self.task.count(batch) for batch in batches]
        count = sum(counts)
        if self.others:
            count = int(self.others.add(count)[0])
        loss_sum = torch.zeros((), device=self.accelerator.device)
        passed = _Passed(loss_sum, count, self._tally(step) if self.names else None)
        with self.others.lockstep() if self.others else nullcontext():
            for number, batch in enumerate(batches):
                seed_everything(mix(self.seed, "model", step, number, self.rank))
                with self.accelerator.autocast():
                    loss, more = self._losses(batch, (step, number), count)
                    scaled = sum((term for _, term in more), start=loss) * (1 / count)
                    # once per effective batch: the main process has an example of every one
                    if number == len(batches) - 1 and self.main:
                        for hook in self.hooks:
                            passed.terms |= hook.loss_terms(step)
                        scaled = sum(passed.terms.values(), start=scaled)
                    self._add(scaled)
                passed.loss_sum += loss.detach()
                for name, term in more:
                    passed.added[name] = passed.added.get(name, 0.0) + term.detach()
                if passed.tally:
                    passed.tally.add(number, loss.detach(), counts[number])
                for hook in self.hooks:
                    hook.after_backward(step, number)
            if self.others and self.others.sharding.lockstep:
                self._keep_step(step, len(batches), count)
        return passed

    def _losses(
        self, batch: Batch, place: tuple[int, int], total: int
    ) -> "tuple[Tensor, list[tuple[str, Tensor]]]":
        """Return a micro-batch's loss, and what hooks or the task add to it by name, each summed over it.

        `place` is its step and its number in that, and `total` what the sums will be divided by.
        """
        device, smoothing = self.accelerator.device, self.config.label_smoothing
        if device.type != "cpu":
            batch = {name: x.to(device, non_blocking=True) for name, x in batch.items()}
        if not self.adding:
            return self.task.loss(self.model, batch, smoothing), []
        with _outputs(self.model) as outputs:
            loss = self.task.loss(self.model, batch, smoothing)
        examples = len(self.batches.order.batch(place[0]))
        micro = MicroBatch(*place, batch, outputs[-1], total, examples)
        more = [part.micro_batch_losses(micro) for part in self.adding]
        return loss, [item for losses in more for item in losses.items()]

    def _add(self, loss: "Tensor") -> None:
        """Add a loss's gradients to those that are there."""
        if self.scaler:
            loss = self.scaler.scale(loss)
        engine = self.others and self.others.sharding.engine
        engine.backward(loss) if engine else loss.backward()

    def _keep_step(self, step: int, done: int, count: int) -> None:
        """Make as many passes as the process with most micro-batches: shards are exchanged in them."""
        for number, batch in enumerate(self.batches.idle(step), start=done):
            with self.accelerator.autocast():
                loss, more = self._losses(batch, (step, number), count)
            self._add(sum((term for _, term in more), start=loss) * 0.0)

    def _tally(self, step: int) -> Tally:
        every, last = self.config.logging_every, step == self.batches.num_steps
        due = last or (every and step % every == 0)
        kept = any(hook.wants_task_gradients(step) for hook in self.hooks)
        # of several processes each has but a share of a task's gradient
        watched = self._parameters() if kept or (due and not self.others) else []
        known = surgery.trainable(self.learner.model) if watched else {}
        names = {id(parameter): name for name, parameter in known.items()}
        return Tally(self.names, self.batches.parts(step), {names[id(p)]: p for p in watched}, kept)

    def _add_gradients(self, others: Processes, short: str) -> str:
        """Add up the gradients of all processes; or return why one of them has none, if memory ran out."""
        parameters = self._parameters()
        # as where this process's share is empty
        lacking = any(parameter.grad is None for parameter in parameters)
        num_short, num_lacking = others.add(bool(short), lacking)
        if num_short:
            return next(filter(None, others.gather(short)))
        others.add_gradients(parameters, num_lacking > 0)
        return ""

    def _update(self, step: int, learning_rate: float, passed: _Passed) -> Done:
        """Clip, then move the weights if everything is finite; the gradients are gone afterwards."""
        loss, scalars = (
            passed.loss_sum.item(),
            {k: float(v.detach()) for k, v in passed.terms.items()},
        )
        sums: Sums = {}
        added: Sums = {}
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if passed.tally:
            scale = self.scaler.get_scale() if self.scaler else 1.0
            scalars |= {} if self.others else passed.tally.norms(scale)
            add = self.others.add_tensors if self.others else None
            self.task_gradients = passed.tally.gradients(scale, add)
            sums = passed.tally.sums()
            if self.others:
                sums = joined(self.others.gather(sums))
        if self.adding:
            added = {name: (float(value), 0) for name, value in passed.added.items()}
            if self.others:
                added = joined(self.others.gather(added))
            added = {name: (value, passed.count) for name, (value, _) in added.items()}
        for hook in self.hooks:
            scalars |= hook.before_optimizer_step(step)
        if self.others:
            loss = self.others.add(loss)[0]
        learning_rate *= math.prod(hook.rate_factor(step) for hook in self.hooks)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        with self.others.lockstep() if self.others else nullcontext():
            engine = self.others and self.others.sharding.engine
            norm, applied = engine.update() if engine else self._move(math.isfinite(loss))
        if applied:
            for hook in self.hooks:
                scalars |= hook.after_optimizer_step(step)
        if self.scaler:
            self.scaler.update()
        self.optimizer.zero_grad()
        return Done(loss, passed.count, norm, applied, learning_rate, scalars, sums, added)

    def _move(self, finite: bool) -> tuple[float, bool]:
        """Clip the gradients and make the optimizer's step if all is finite; return their norm and whether
        the weights have moved."""
        from torch import nn

        parameters = self._parameters()
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if hasattr(norm, "full_tensor"):  # of shards
            norm = norm.full_tensor()
        nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm or math.inf, norm)
        size = norm.item()
        if not finite or not math.isfinite(size):
            return size, False
        if self.scaler:
            self.scaler.step(self.optimizer)
        else:
            self.optimizer.step()
        return size, True

    def _no_room(self, message: str, where: str) -> OutOfMemory:
        return memory.no_room(self.model, self._parameters(), message, where)

    def _parameters(self) -> "list[nn.Parameter]":
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _halve(self, step: int, message: str) -> None:
        """Make the micro-batch half as large.

        Raises:
            OutOfMemory: one example alone does not fit.
        """
        from accelerate.utils.memory import clear_device_cache

        self.optimizer.zero_grad()
        clear_device_cache(garbage_collection=True)
        largest = -(-len(self.batches.order.batch(step)) // self.batches.share.world)
        size = min(self.batches.micro_batch_size, largest)
        if size == 1:
            raise self._no_room(message, "with a single example")
        self.batches.micro_batch_size = -(-size // 2)
        self.batches.restart()
        log.warning(
            "out of memory at step %d: the micro-batch goes from %d to %d examples; the effective "
            "batch stays, but the run is no longer exactly repeatable",
            step,
            size,
            self.batches.micro_batch_size,
        )


@contextmanager
def _outputs(model: "nn.Module") -> "Iterator[list[object]]":
    """Yield a list that gets what the model returns inside."""
    found: list[object] = []
    handle = model.register_forward_hook(lambda _, __, output: found.append(output))
    try:
        yield found
    finally:
        handle.remove()
