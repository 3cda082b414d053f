"""One optimizer step: forward and backward over its micro-batches, clipping, the update."""

import contextlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Batch, Task
from graftlab.errors import OutOfMemory
from graftlab.hooks import Hook
from graftlab.seeds import mix, seed_everything
from graftlab.training.batches import Batches

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
    scalars: dict[str, float]


@dataclass
class Stepper:
    """Makes steps. Its micro-batch halves, for good, when memory runs out."""

    accelerator: "Accelerator"
    model: "nn.Module"
    """As the forward pass sees it: wrapped for several processes, compiled, or plain."""
    optimizer: "torch.optim.Optimizer"
    task: Task
    hooks: Sequence[Hook]
    batches: Batches
    seed: int
    clip_norm: float
    label_smoothing: float

    def step(self, step: int, learning_rate: float) -> Done:
        """Make one step at this rate; replay it from its start with a smaller micro-batch if need be."""
        while True:
            try:
                summed = self._backward(step)
                break
            except RuntimeError as error:
                if not _memory_ran_out(error):
                    raise
                message = str(error)
            self._halve(step, message)  # outside `except`: the traceback holds the tensors
        try:
            return self._update(step, learning_rate, summed)
        except RuntimeError as error:
            if not _memory_ran_out(error):
                raise
            # some weights may have moved already: the last checkpoint is where to go on from
            raise OutOfMemory(self._no_room(str(error), "in the optimizer's step")) from error

    def _backward(self, step: int) -> "tuple[Tensor, int, dict[str, Tensor]]":
        """Sum the gradients of the step; return the loss summed, its count and the extra losses."""
        import torch

        for hook in self.hooks:
            hook.on_step_start(step)
        micro = self.batches.get(step)
        count = self._over_processes(sum(self.task.count(batch) for batch in micro))
        total = torch.zeros((), device=self.accelerator.device)
        terms: dict[str, Tensor] = {}
        share = self.batches.share
        for number, batch in enumerate(micro):
            last = number == len(micro) - 1
            seed_everything(mix(self.seed, "model", step, number, share.rank))
            with self._no_sync(last), self.accelerator.autocast():
                loss = self.task.loss(self.model, self._on_device(batch), self.label_smoothing)
                total += loss.detach()
                # DDP averages over processes; the sum over examples is what is wanted
                scaled = loss * (share.world / count)
                if last:
                    terms = {k: v for hook in self.hooks for k, v in hook.loss_terms(step).items()}
                    scaled = sum(terms.values(), start=scaled)
                (self._scaler.scale(scaled) if self._scaler else scaled).backward()
            for hook in self.hooks:
                hook.after_backward(step, number)
        return total, count, {k: v.detach() for k, v in terms.items()}

    def _update(
        self, step: int, learning_rate: float, summed: "tuple[Tensor, int, dict[str, Tensor]]"
    ) -> Done:
        """Clip, then move the weights if everything is finite; the gradients are gone afterwards."""
        import torch

        total, count, terms = summed
        if self._scaler:
            self._scaler.unscale_(self.optimizer)
        scalars = {name: float(value) for name, value in terms.items()}
        for hook in self.hooks:
            scalars |= hook.before_optimizer_step(step)
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm or math.inf)
        loss, size = self._over_processes(total.item()), norm.item()
        applied = math.isfinite(loss) and math.isfinite(size)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        if applied:
            if self._scaler:
                self._scaler.step(self.optimizer)
            else:
                self.optimizer.step()
            for hook in self.hooks:
                scalars |= hook.after_optimizer_step(step)
        if self._scaler:
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Done(loss, count, size, applied, scalars)

    @property
    def _scaler(self) -> Any:
        return self.accelerator.scaler  # None unless float16

    def _no_sync(self, last: bool) -> Any:
        if last or self.batches.share.world == 1:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(self.model)

    def _on_device(self, batch: Batch) -> Batch:
        device = self.accelerator.device
        if device.type == "cpu":
            return batch
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}

    def _over_processes(self, value: Any) -> Any:
        """Sum a number over all processes."""
        if self.batches.share.world == 1:
            return value
        import torch

        tensor = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return type(value)(self.accelerator.reduce(tensor, "sum").item())

    def _halve(self, step: int, message: str) -> None:
        """Make the micro-batch half as large.

        Raises:
            OutOfMemory: one example alone does not fit.
        """
        from accelerate.utils.memory import clear_device_cache

        self.optimizer.zero_grad(set_to_none=True)
        clear_device_cache(garbage_collection=True)
        size = min(self.batches.micro_batch_size, len(self.batches.order.batch(step)))
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
        trained = sum(
            p.nbytes for g in self.optimizer.param_groups for p in g["params"]
        ) / 2**20  # fmt: skip
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
