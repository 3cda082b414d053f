"""The training loop, the same for every method, task and backbone."""

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from graftlab.errors import Diverged, Stopped
from graftlab.rundir.run import Lines, NoLines
from graftlab.seeds import mix
from graftlab.training import checkpoint, optimizer, resume, schedule, tallies
from graftlab.training.batches import Batches
from graftlab.training.config import Config, num_steps
from graftlab.training.order import Order
from graftlab.training.parallel import sharding
from graftlab.training.parts import Parts, Position, Scalars
from graftlab.training.step import Done, Stepper
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Loop", "Parts", "Position"]

log = logging.getLogger("graftlab")
MOMENTS = 3  # a checkpoint holds each trainable weight with AdamW's two moments, float32 all


class Loop:
    """Trains what the method left trainable, logs and saves into the run."""

    def __init__(
        self, parts: Parts, config: Config, lines: Lines | NoLines, timing: Lines | NoLines
    ) -> None:
        self.parts, self.config, self.lines, self.timing = parts, config, lines, timing
        self.order = Order.of(
            parts.task, config.batch_size, mix(parts.seed, "order"), config.group_by_length
        )
        self.num_steps = num_steps(config, len(self.order.lengths))
        self.plateau = schedule.Plateau(config.schedule, parts.higher_is_better)
        self.position = Position()
        self.saved_step: int | None = None  # of the last checkpoint, if nothing has changed since
        self._seen = 0
        self._spent: dict[str, float] = {"seconds": 0.0, "examples": 0}
        share = parts.processes.share
        self.batches = Batches(parts.task, self.order, self.num_steps, share, config.workers)
        self.asked_micro_batch_size = config.micro_batch_size or -(
            -config.batch_size // share.world
        )
        self.batches.micro_batch_size = self.asked_micro_batch_size
        self.model = parts.attached.model
        self._shard()
        self.optimizer = optimizer.build(self._groups(), config.optimizer)
        self._forward = parts.processes.sharding.begin(self.model, self.optimizer, config)
        self.stepper = Stepper(
            parts.accelerator,
            self._compiled(),
            self.optimizer,
            parts.task,
            parts.attached.hooks,
            self.batches,
            parts.seed,
            config.clip_norm,
            config.label_smoothing,
            parts.processes,
            config.logging_every,
        )

    def _shard(self) -> None:
        device, steered = self.parts.accelerator.device, bool(self.parts.attached.hooks)
        self.parts.processes.sharding.shard(self.model, device, steered)

    def run(self) -> Position:
        """Train from where the position stands to the end.

        Raises:
            Stopped: a signal came; the state is saved.
            Diverged: too many steps in a row were not finite.
        """
        try:
            return self._run()
        finally:
            self.batches.restart()  # no worker process outlives the training

    def _run(self) -> Position:
        self.model.train()
        self._buffers = resume.buffers(self.model)
        if self.position.step == 0:
            self.save()
        weights = sum(map(sharding.nbytes, surgery.trainable(self.model).values()))
        if self.parts.processes.main:
            every = self.config.keep_every
            stay = self.config.keep_checkpoints + (self.num_steps // every if every else 0)
            checkpoint.check_room(self.parts.run.checkpoints, MOMENTS * weights, stay)
        if self.position.evaluation_pending:
            self._evaluate()
        self._seen = self._examples(self.position.step)
        while self.position.step < self.num_steps and not self.position.ended:
            step, began = self.position.step + 1, time.perf_counter()
            rate = self.config.learning_rate * self.plateau.scale
            rate *= schedule.factor(step, self.num_steps, self.config.schedule)
            done = self.stepper.step(step, rate)
            self.parts.processes.follow(self._buffers)
            self._count(step, done)
            if self._due(self.config.logging_every) or self._last_logged():
                self._log(done)
            self._time(time.perf_counter() - began)
            if self._due(self.config.evaluate_every) or self._last_evaluated():
                self._evaluate()
            ends = step == self.num_steps or self.position.ended
            if ends or self._due(self.config.save_every) or self._due(self.config.keep_every):
                self.save()
            if self.parts.signals.agreed(self.parts.processes):
                self._stop()
        self._write_time()
        for hook in self.parts.attached.hooks:
            hook.on_train_end()
        return self.position

    def _time(self, seconds: float) -> None:
        """Add a step's time, without evaluations and checkpoints, to the line that is written next."""
        self._spent["seconds"] += seconds
        self._spent["examples"] += len(self.order.batch(self.position.step))
        if self._due(self.config.logging_every):
            self._write_time()

    def _write_time(self) -> None:
        if self._spent["examples"]:
            self.timing.append({"step": self.position.step, **self._spent})
            self._spent = {"seconds": 0.0, "examples": 0}

    def _stop(self) -> None:
        self._write_time()
        self.save()
        raise self.parts.signals.stopped()

    def _due(self, every: int | str) -> bool:
        if every == "epoch":
            every = self.order.steps_per_epoch
        assert isinstance(every, int)
        return every > 0 and self.position.step % every == 0

    def _last_logged(self) -> bool:
        return self.config.logging_every > 0 and self.position.step == self.num_steps

    def _last_evaluated(self) -> bool:
        return self.config.evaluate_every != 0 and self.position.step == self.num_steps

    def _examples(self, step: int) -> int:
        """Return how many examples the first `step` steps have seen."""
        epochs, rest = divmod(step, self.order.steps_per_epoch)
        return epochs * len(self.order.lengths) + sum(
            len(self.order.batch(epochs * self.order.steps_per_epoch + k + 1)) for k in range(rest)
        )

    def _count(self, step: int, done: Done) -> None:
        """Take a step into the position; a skipped one leaves a gap and is never averaged."""
        position = self.position
        position.step = step
        self._seen += len(self.order.batch(step))
        position.micro_batch_size = self.batches.micro_batch_size
        if done.applied:
            position.loss_sum += done.loss
            position.loss_count += done.count
            for name, sums in done.sums.items():
                before = position.task_sums.get(name, (0.0, 0))
                position.task_sums[name] = [
                    was + new for was, new in zip(before, sums, strict=True)
                ]
            position.skipped_in_row = 0
            return
        position.skipped += 1
        position.skipped_in_row += 1
        indices = self.order.batch(step)
        log.warning(
            "step %d skipped: loss %s, gradient norm %s; its examples are %s",
            step,
            done.loss / done.count,
            done.gradient_norm,
            indices,
        )
        self.tell({"loss": None, "skipped": 1.0})
        if position.skipped_in_row >= self.config.max_skipped:
            raise Diverged(
                f"{position.skipped_in_row} steps in a row, up to step {step}, had no finite loss and "
                f"gradient; none of them reached the weights. The examples are named in "
                f"{self.parts.run.log}. Lower training.learning_rate"
                + (", or use precision: bf16." if self.config.precision == "fp16" else ".")
            )

    def _log(self, done: Done) -> None:
        position = self.position
        loss = position.loss_sum / position.loss_count if position.loss_count else None
        scalars: Scalars = {
            "loss": loss,
            "learning_rate": done.learning_rate,
            "gradient_norm": done.gradient_norm,
            **done.scalars,
            **tallies.means(position.task_sums),
        }
        if position.step <= self.config.logging_every and done.gradient_norm == 0.0:
            log.warning("the gradient is zero: nothing is trained")
        position.loss_sum, position.loss_count, position.task_sums = 0.0, 0, {}
        self.tell(scalars)

    def tell(self, scalars: Scalars) -> None:
        """Write a line of metrics.jsonl for this step, and tell the sinks."""
        step = self.position.step
        self.lines.append({"step": step, **scalars})
        for sink in self.parts.sinks:
            sink(step, scalars, self._seen)

    def _evaluate(self) -> None:
        """Evaluate on validation; keep the best; decide whether to go on."""
        position = self.position
        self.saved_step = None
        try:
            scores = self.parts.evaluate(self.model)
        except Stopped:
            position.evaluation_pending = True
            self.save()
            raise
        position.evaluation_pending = False
        self.tell({f"validation/{name}": value for name, value in scores.items()})
        value = scores[self.parts.best_by]
        if value is not None and not math.isfinite(value):
            value = None  # as undefined as a metric that cannot be computed: never the best
        self.plateau.update(value)
        if self._improved(value):
            position.best_step, position.best_value, position.waited = position.step, value, 0
            if self.config.select == "best":
                self.save()
            return
        position.waited += 1
        patience = self.config.early_stopping.patience
        if patience and position.waited >= patience:
            position.ended = True
            log.info(
                "stopped early at step %d: best was step %d", position.step, position.best_step
            )

    def _improved(self, value: float | None) -> bool:
        if value is None:
            return False
        if self.position.best_value is None:
            return True
        sign = 1.0 if self.parts.higher_is_better else -1.0
        gain = sign * (value - self.position.best_value)
        return gain > self.config.early_stopping.min_improvement

    def _groups(self) -> list[dict[str, Any]]:
        rates = dict(self.parts.attached.rates)
        parameters = surgery.trainable(self.model)
        if self.config.head_learning_rate is not None:
            ratio = self.config.head_learning_rate / self.config.learning_rate
            rates |= {name: ratio for name in parameters if self._in_head(name)}
        return optimizer.groups(parameters, self.config.optimizer, rates)

    def _in_head(self, name: str) -> bool:
        """Return whether a parameter is the head's, also where PEFT has put its own names around it."""
        return any(f".{module}." in f".{name}" for module in self.parts.head)

    def _compiled(self) -> "nn.Module":
        """Return the model as the forward pass sees it."""
        if not self.config.compile:
            return self._forward
        import torch

        compiled: nn.Module = torch.compile(self._forward)  # type: ignore[assignment]
        return compiled

    def parameters_changed(self) -> None:
        """Renew groups and compiled graph after a method made other parameters trainable.

        Those of the main process are sent to the others, for whom a factorisation may have come out
        otherwise in its last bits.
        """
        groups = self._groups()
        kept = {id(p) for group in groups for p in group["params"]}
        for parameter in [p for p in self.optimizer.state if id(p) not in kept]:
            del self.optimizer.state[parameter]
        self.optimizer.param_groups.clear()
        for group in groups:
            self.optimizer.add_param_group(group)
        self.stepper.model = self._compiled()
        self._buffers = resume.buffers(self.model)
        self.parts.processes.send(surgery.trainable(self.model) | self._buffers)

    def save(self) -> None:
        """Write a checkpoint of this moment, unless nothing has changed since the last one."""
        if self.saved_step == self.position.step:
            return
        processes, began = self.parts.processes, time.perf_counter()
        processes.check_same(surgery.trainable(self.model))
        with processes.lockstep():
            tensors, state = resume.gather(self)
        with processes.together():
            if processes.main:
                resume.save(self, tensors, state, began)
        self.saved_step = self.position.step
