"""One optimizer step: forward and backward over its micro-batches, clipping, the update."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Batch, Hook, Task
from graftlab.errors import OutOfMemory
from graftlab.seeds import mix, seed_everything
from graftlab.training.batches import Batches
from graftlab.training.parallel.processes import Processes
from graftlab.training.parallel.sharding import Sharding
from graftlab.training.tallies import Sums, Tally, joined, names_of

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
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


@dataclass
class Stepper:
    """Makes steps. Its micro-batch halves, for good, when memory runs out."""

    accelerator: "Accelerator"
    model: "nn.Module"
    """As the forward pass sees it: compiled, or plain."""
    optimizer: "torch.optim.Optimizer"
    task: Task
    hooks: Sequence[Hook]
    batches: Batches
    seed: int
    clip_norm: float
    label_smoothing: float
    processes: Processes
    measure_every: int = 0
    """Steps between those in which the gradient of each task of a mixture is measured; 0 means never."""

    def step(self, step: int, learning_rate: float) -> Done:
        """Make one step at this rate; replay it from its start with a smaller micro-batch if need be."""
        while True:
            summed, message = None, ""
            try:
                summed = self._backward(step)
            except RuntimeError as error:
                if not _memory_ran_out(error):
                    raise
                message = str(error)
                if self.processes.broken:  # the others wait for a shard
                    raise OutOfMemory(self._no_room(message, f"in step {step}")) from error
            # outside `except`: the traceback holds the tensors
            short, lacking = self.processes.add(bool(message), self._lacking())
            if summed is not None and not short:
                break
            said = self.processes.gather(message)
            self._halve(step, next(message for message in said if message))
        self.processes.add_gradients(self._parameters(), lacking > 0)
        try:
            return self._update(step, learning_rate, summed)
        except RuntimeError as error:
            if not _memory_ran_out(error):
                raise
            # some weights may have moved already: the last checkpoint is where to go on from
            raise OutOfMemory(self._no_room(str(error), "in the optimizer's step")) from error

    def _backward(self, step: int) -> "tuple[Tensor, int, dict[str, Tensor]]":
        """Sum the gradients of this process's share; return its loss summed, the count of all processes
        and, on the main one, the extra losses."""
        import torch

        for hook in self.hooks:
            hook.on_step_start(step)
        micro = self.batches.get(step)
        counts = [self.task.count(batch) for batch in micro]
        count = int(self.processes.add(sum(counts))[0])
        total = torch.zeros((), device=self.accelerator.device)
        terms: dict[str, Tensor] = {}
        rank = self.batches.share.rank
        self._tally = self._new_tally(step)
        with self.processes.lockstep():
            for number, batch in enumerate(micro):
                seed_everything(mix(self.seed, "model", step, number, rank))
                with self.accelerator.autocast():
                    loss = self.task.loss(self.model, self._on_device(batch), self.label_smoothing)
                    total += loss.detach()
                    scaled = loss * (1 / count)
                    # once per effective batch: the main process has an example of every one
                    if number == len(micro) - 1 and self.processes.main:
                        terms = {
                            k: v for hook in self.hooks for k, v in hook.loss_terms(step).items()
                        }
                        scaled = sum(terms.values(), start=scaled)
                    self._sharding.backward(self._scaler.scale(scaled) if self._scaler else scaled)
                self._tally.add(number, loss.detach(), counts[number])
                for hook in self.hooks:
                    hook.after_backward(step, number)
            self._keep_step(step)
        return total, count, {k: v.detach() for k, v in terms.items()}

    def _keep_step(self, step: int) -> None:
        """Make as many passes as the process with most micro-batches, where shards are exchanged in them."""
        if not self._sharding.lockstep:
            return
        for batch in self.batches.idle(step):
            with self.accelerator.autocast():
                loss = self.task.loss(self.model, self._on_device(batch), self.label_smoothing)
            self._sharding.backward(loss * 0.0)

    def _new_tally(self, step: int) -> Tally:
        due = step == self.batches.num_steps or (
            self.measure_every and step % self.measure_every == 0
        )
        # of several processes each has but a share of a task's gradient
        watched = self._parameters() if due and self.processes.alone else []
        return Tally(names_of(self.task), self.batches.parts(step), watched)

    def _update(
        self, step: int, learning_rate: float, summed: "tuple[Tensor, int, dict[str, Tensor]]"
    ) -> Done:
        """Clip, then move the weights if everything is finite; the gradients are gone afterwards."""
        total, count, terms = summed
        if self._scaler:
            self._scaler.unscale_(self.optimizer)
        scalars = {name: float(value) for name, value in terms.items()}
        scalars |= self._tally.norms(self._scaler.get_scale() if self._scaler else 1.0)
        sums = joined(self.processes.gather(self._tally.sums())) if names_of(self.task) else {}
        for hook in self.hooks:
            scalars |= hook.before_optimizer_step(step)
        loss = self.processes.add(total.item())[0]
        learning_rate *= math.prod(hook.rate_factor(step) for hook in self.hooks)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        with self.processes.lockstep():
            size, applied = self._sharding.update(
                self.optimizer, self._scaler, self.clip_norm, math.isfinite(loss)
            )
        if applied:
            for hook in self.hooks:
                scalars |= hook.after_optimizer_step(step)
        if self._scaler:
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Done(loss, count, size, applied, learning_rate, scalars, sums)

    @property
    def _sharding(self) -> Sharding:
        return self.processes.sharding

    @property
    def _scaler(self) -> Any:
        return self.accelerator.scaler  # None unless float16

    def _parameters(self) -> "list[nn.Parameter]":
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _lacking(self) -> bool:
        """Return whether a parameter has no gradient here, as all where this process's share is empty."""
        return not self.processes.alone and any(p.grad is None for p in self._parameters())

    def _on_device(self, batch: Batch) -> Batch:
        device = self.accelerator.device
        if device.type == "cpu":
            return batch
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}

    def _halve(self, step: int, message: str) -> None:
        """Make the micro-batch half as large.

        Raises:
            OutOfMemory: one example alone does not fit.
        """
        from accelerate.utils.memory import clear_device_cache

        self.optimizer.zero_grad(set_to_none=True)
        clear_device_cache(garbage_collection=True)
        largest = -(-len(self.batches.order.batch(step)) // self.batches.share.world)
        size = min(self.batches.micro_batch_size, largest)
        if size == 1:
            raise OutOfMemory(self._no_room(message, "with a single example"))
        self.batches.micro_batch_size = -(-size // 2)
        self.batches.restart()
        log.warning(
            "out of memory at step %d: the micro-batch goes from %d to %d examples; the effective "
            "batch stays, but the run is no longer exactly repeatable",
            step,
            size,
            self.batches.micro_batch_size,
        )

    def _no_room(self, message: str, where: str) -> str:
        largest = sorted(self.model.named_parameters(), key=lambda item: -item[1].nbytes)[:3]
        names = ", ".join(f"{name} ({p.nbytes / 2**20:.0f} MiB)" for name, p in largest)
        weights = sum(p.nbytes for p in self.model.parameters()) / 2**20
        trained = sum(p.nbytes for p in self._parameters()) / 2**20
        return (
            f"out of memory {where} ({message.partition(chr(10))[0]}). Weights take "
            f"{weights:.0f} MiB, gradients and optimizer about {3 * trained:.0f} MiB; largest: {names}. "
            "Options: task.max_length smaller; training.gradient_checkpointing: true; "
            "backbone.dtype: bfloat16 (or a smaller backbone)."
        )


def _memory_ran_out(error: RuntimeError) -> bool:
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
