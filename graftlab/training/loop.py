"""The training loop, the same for every method, task and backbone."""

import logging
import math
import time

from graftlab.contracts import Training
from graftlab.errors import Diverged, Stopped
from graftlab.rundir.lines import Lines, NoLines, opened
from graftlab.seeds import mix
from graftlab.training import fixed_batch, patience, resume, schedule, tallies
from graftlab.training.checkpoint import Checkpoint
from graftlab.training.config import Config, num_steps
from graftlab.training.learner import Learner
from graftlab.training.order import Batches, Order
from graftlab.training.parts import Parts, Scalars
from graftlab.training.state import Position, State
from graftlab.training.state_file import Compared, Kept
from graftlab.training.step import Done, Stepper
from graftlab.weights import surgery

__all__ = ["Loop", "Parts", "Position"]

log = logging.getLogger("graftlab")


class Loop:
    """Trains what the method left trainable, logs and saves into the run."""

    def __init__(
        self, parts: Parts, config: Config, lines: Lines | NoLines, timing: Lines | NoLines
    ) -> None:
        self.parts, self.config, self.lines, self.timing = parts, config, lines, timing
        self.others = None if parts.processes.alone else parts.processes  # chosen once
        share, seed = parts.processes.share, mix(parts.seed, "order")
        self.order = Order.of(parts.task, config.batch_size, seed, config.group_by_length)
        self.num_steps = num_steps(config, len(self.order.lengths))
        mine = -(-config.batch_size // share.world)
        self.asked_micro_batch_size = config.micro_batch_size or mine
        self.batches = Batches(parts.task, self.order, self.num_steps, share, config.workers)
        self.batches.micro_batch_size = self.asked_micro_batch_size
        self.learner = Learner(parts, config)
        self.model, self.optimizer = self.learner.model, self.learner.optimizer
        self.plateau = schedule.Plateau(config.schedule, parts.higher_is_better)
        self.state = State(
            attached=parts.attached,
            optimizer=self.optimizer,
            plateau=self.plateau,
            scaler=parts.accelerator.scaler,
            sharding=parts.processes.sharding,
        )
        self.stepper = Stepper(parts, config, self.batches, self.learner)
        self.tables: dict[str, Lines | NoLines] = {}  # of hooks
        self.saved_step: int | None = None  # of the last checkpoint, if nothing has changed since
        self._seen = 0
        self._spent: dict[str, float] = {"seconds": 0.0, "examples": 0}

    @property
    def position(self) -> Position:
        return self.state.position

    def begin(self) -> None:
        """Tell the hooks that training begins."""
        processes = self.parts.processes
        folder = None if isinstance(self.lines, NoLines) else self.parts.run.path
        training = Training(
            self.model, self.optimizer,
            self.num_steps, self.order.steps_per_epoch,
            self.learner.renew,
            agree=processes.agree, add=processes.add_tensors,
            tell=self.tell,  # type: ignore[arg-type]  # scalars may be None there
            probe=self._probe,
            micro_batches=self.batches.count,
            folder=folder,
            lines=lambda name: self.tables.setdefault(name, opened(folder, name)),
            task_gradients=lambda: self.stepper.task_gradients,
        )  # fmt: skip
        for hook in self.parts.attached.hooks:
            hook.on_train_start(training)

    def run(self) -> Position:
        """Train from where the position stands to the end.

        Raises:
            Stopped: a signal came; the state is saved.
            Diverged: too many steps in a row were not finite, or all that there were.
        """
        try:
            return self._run()
        finally:
            self.batches.restart()  # no worker process outlives the training

    def _run(self) -> Position:
        config, position, signals = self.config, self.position, self.parts.signals
        self.learner.begin()
        if position.step == 0:
            self.save()
        if self.parts.processes.main:
            resume.check_room(self.parts.run.checkpoints, self.model, config, self.num_steps)
        if position.evaluation_pending:
            self._evaluate()
        self._seen = self.order.examples(position.step)
        while position.step < self.num_steps and not (position.ended or position.out_of_time):
            step, began = position.step + 1, time.perf_counter()
            rate = config.learning_rate * self.plateau.scale
            rate *= schedule.factor(step, self.num_steps, config.schedule)
            done = self.stepper.step(step, rate)
            if self.others:
                self.others.follow(self.learner.buffers)
            self._count(step, done)
            last = self._out_of_time(began) or step == self.num_steps
            if self._due(config.logging_every) or (last and config.logging_every):
                self._log(done)
            self._time(time.perf_counter() - began)
            if self._due(config.evaluate_every) or (last and config.evaluate_every):
                self._evaluate()
            ends = last or position.ended
            if ends or self._due(config.save_every) or self._due(config.keep_every):
                self.save()
            if signals.agreed(self.others) if self.others else signals.received:
                self._stop()
        self._write_time()
        if position.step and position.skipped == position.step:
            raise self._diverged(f"all {position.step} steps of this run had")
        for hook in self.parts.attached.hooks:
            hook.on_train_end()
        return position

    def _out_of_time(self, began: float) -> bool:
        limit, agree = self.config.max_seconds, self.parts.processes.agree
        took = time.perf_counter() - began if limit else 0.0
        return patience.is_out_of_time(self.position, took, limit, agree)

    def _due(self, every: int | str) -> bool:
        steps = self.order.steps_per_epoch if every == "epoch" else int(every)
        return steps > 0 and self.position.step % steps == 0

    def _count(self, step: int, done: Done) -> None:
        """Take a step into the position; a skipped one leaves a gap and is never averaged."""
        position = self.position
        position.step = step
        examples = len(self.order.batch(step))
        self._seen += examples
        self._spent["examples"] += examples
        position.micro_batch_size = self.batches.micro_batch_size
        if not done.applied:
            self._skip(step, done)
            return
        position.skipped_in_row = 0
        position.loss_sum += done.loss
        position.loss_count += done.count
        if done.sums or done.added:
            tallies.add(position.task_sums, done.sums)
            tallies.add(position.added_sums, done.added)

    def _skip(self, step: int, done: Done) -> None:
        position = self.position
        position.skipped += 1
        position.skipped_in_row += 1
        log.warning(
            "step %d skipped: loss %s, gradient norm %s; its examples are %s",
            step,
            done.loss / done.count,
            done.gradient_norm,
            self.order.batch(step),
        )
        self.tell({"loss": None, "skipped": 1.0})
        if position.skipped_in_row >= self.config.max_skipped:
            raise self._diverged(
                f"{position.skipped_in_row} steps in a row, up to step {step}, had"
            )

    def _diverged(self, which: str) -> Diverged:
        remedy = ", or use precision: bf16." if self.config.precision == "fp16" else "."
        return Diverged(
            f"{which} no finite loss and gradient; none of them reached the weights. The examples are named "
            f"in {self.parts.run.log}. Lower training.learning_rate{remedy}"
        )

    def _log(self, done: Done) -> None:
        """Write what the steps since the last line have come to."""
        position = self.position
        scalars: Scalars = {
            "loss": position.loss_sum / position.loss_count if position.loss_count else None,
            "learning_rate": done.learning_rate,
            "gradient_norm": done.gradient_norm,
            **done.scalars,
        }
        if position.task_sums or position.added_sums:
            tasks = tallies.means(position.task_sums)
            scalars |= {f"{name}/loss": value for name, value in tasks.items()}
            scalars |= tallies.means(position.added_sums)
        if position.step <= self.config.logging_every and done.gradient_norm == 0.0:
            log.warning("the gradient is zero: nothing is trained")
        position.loss_sum, position.loss_count = 0.0, 0
        position.task_sums, position.added_sums = {}, {}
        self.tell(scalars)

    def tell(self, scalars: Scalars) -> None:
        """Write a line of metrics.jsonl for this step, and tell the sinks."""
        step = self.position.step
        self.lines.append({"step": step, **scalars})
        for sink in self.parts.sinks:
            sink(step, scalars, self._seen)

    def _time(self, seconds: float) -> None:
        """Add a step's time, without evaluations and checkpoints, to the line that is written next."""
        self._spent["seconds"] += seconds
        if self._due(self.config.logging_every):
            self._write_time()

    def _write_time(self) -> None:
        if self._spent["examples"]:
            self.timing.append({"step": self.position.step, **self._spent})
            self._spent = {"seconds": 0.0, "examples": 0}

    def _evaluate(self) -> None:
        """Evaluate on validation; keep the best; decide whether to go on."""
        position, higher = self.position, self.parts.higher_is_better
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
        if patience.is_best(position, value, higher, self.config.early_stopping):
            if self.config.select == "best":
                self.save()
        elif position.ended:
            step, best = position.step, position.best_step
            log.info("stopped early at step %d: best was step %d", step, best)

    def _stop(self) -> None:
        self._write_time()
        self.save()
        raise self.parts.signals.stopped()

    def _probe(self) -> float:
        """Return the mean loss of the first step's examples, as many as go through at once."""
        parts = self.parts
        indices = self.order.batch(1)[: self.asked_micro_batch_size]
        batch = parts.task.batch("train", indices, None)
        try:
            return fixed_batch.loss(parts.task, self.model, batch, parts.accelerator)
        finally:
            self.state.sharding.settle(self.model)

    def save(self) -> None:
        """Write a checkpoint of this moment, unless nothing has changed since the last one."""
        if self.saved_step == self.position.step:
            return
        processes, began = self.parts.processes, time.perf_counter()
        processes.check_same(surgery.trainable(self.model))
        with processes.lockstep():
            tensors, values = resume.gather(self.state)
        step, folder = self.position.step, self.parts.run.checkpoints
        with processes.together():
            if processes.main:
                kept: Kept = {**values, **self._facts()}
                size = resume.write(folder, tensors, kept, self.config)
                seconds = time.perf_counter() - began
                took = {"event": "checkpoint", "step": step, "seconds": seconds, "bytes": size}
                self.timing.append(took)
        self.saved_step = step

    def _facts(self) -> Compared:
        """Return what else is kept with a checkpoint, to be compared on a resume."""
        return {
            "config": dict(self.parts.config),
            "num_steps": self.num_steps,
            "world": self.batches.share.world,
            "micro_batch_size": self.asked_micro_batch_size,
            **resume.marks(self.lines, self.timing, self.tables),
            "environment": dict(self.parts.environment),
        }

    def restore(self, saved: Checkpoint) -> None:
        """Put a checkpoint back: after this, the run is where it was."""
        resume.restore(self.state, saved, self.parts.run.checkpoints)
        position, before = self.position, saved.state["micro_batch_size"]
        # what it was cut to when memory ran out, if that is less than the run file's
        if 0 < position.micro_batch_size < before:
            cut = min(self.asked_micro_batch_size, position.micro_batch_size)
            self.batches.micro_batch_size = cut
        for name, lines in {"metrics": self.lines, "timing": self.timing, **self.tables}.items():
            position.not_exact += resume.cut(lines, name, saved)
        self.saved_step = saved.step

    def restore_best(self) -> None:
        """Give the model the weights of the best checkpoint: training is over."""
        resume.restore_best(self.state, self.parts.run.checkpoints)
