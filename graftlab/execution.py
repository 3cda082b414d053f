"""One run carried out: data, backbone, method, training, scores. The only module that knows all the parts."""

import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab import evaluation, files, identity, provenance, registry
from graftlab.contracts import Attached, Backbone, Batch, Data, Setting, Task
from graftlab.errors import CheckpointError, ConfigError, unknown
from graftlab.runfile import RunFile
from graftlab.runs import Lines, Run, read_lines
from graftlab.seeds import mix, seed_everything
from graftlab.training import checkpoint
from graftlab.training.config import num_steps
from graftlab.training.loop import Loop, Parts, Position
from graftlab.training.order import Order
from graftlab.training.progress import Progress
from graftlab.training.signals import Signals
from graftlab.training.trackers import Trackers

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

log = logging.getLogger("graftlab")


@dataclass(frozen=True)
class Options:
    """How a run is carried out, as against what it computes."""

    quiet: bool = False
    """No progress on the terminal; run.log is written all the same."""
    allow_inexact: bool = False
    """Go on without files of a checkpoint, or from its weights alone, and mark the run."""
    override: tuple[str, ...] = ()
    """Keys of config.yaml that may differ from what the checkpoint was made with."""


# Figures of `data.record` that stand in the first line of metrics.jsonl, under the names of JELLY's trainer.
TRAIN_SIZES = ("validation/original_train_data_size", "validation/sliced_train_data_size")


def metric(name: str) -> "ModuleType":
    return registry.find("metrics", name)


class Execution:
    """Carries out one run in its directory, from wherever it stands."""

    def __init__(self, run: Run, file: RunFile, options: Options, signals: Signals) -> None:
        self.run, self.file, self.options, self.signals = run, file, options, signals
        self.not_exact: list[str] = []

    def carry_out(self) -> None:
        """Train to the end, then score; `result.json` is written last."""
        from graftlab.training import devices

        with devices.deterministic(self.file.deterministic) as self.warnings:
            self._carry_out()

    def _carry_out(self) -> None:
        from graftlab.training import devices, resume

        file, began = self.file, time.perf_counter()
        seed_everything(file.seed)
        self.accelerator = devices.accelerator(file.training.precision)
        saved = self._saved()
        data = file.task.module.read(file.task.config, file.paths, file.seed)
        self.signals.check()
        backbone = file.backbone.module.load(
            file.backbone.config, data.problem, mix(file.seed, "backbone")
        )
        if note := backbone.record.get("note"):
            log.warning("%s", note)
        for said in data.record.get("notes", ()):
            log.warning("%s", said)
        task = file.task.module.bind(data, backbone, file.task.config, mix(file.seed, "task"))
        # an adapter outlives the data
        problem = {"problem": data.problem.kind, "labels": list(data.problem.labels)}
        record = {**problem, **data.record, **getattr(task, "record", {})}
        log.info("data: %s", record.get("sizes"))
        self._remember(record, backbone, saved)
        backbone.model.to(self.accelerator.device)
        self.signals.check()
        attached = self._attach(backbone, task, saved)
        with ExitStack() as stack:
            loop = self._loop(attached, task, backbone, stack)
            resume.start(loop)
            if saved is not None:
                resume.restore(loop, saved, self._computed() if attached.computed else {})
                reasons = [*loop.position.not_exact, *self.not_exact]
                loop.position.not_exact = list(
                    dict.fromkeys(reasons)
                )  # each once, over all resumes
            else:
                loop.lines.cut(0)
                loop.tell({key: record[key] for key in TRAIN_SIZES if key in record})
            position = loop.run()
            self._select(loop)
            self._finish(loop, data, time.perf_counter() - began)
        assert position.step > 0

    def _saved(self) -> checkpoint.Checkpoint | None:
        """Return the checkpoint to go on from, or None to start.

        Raises:
            CheckpointError: there are checkpoints, and none can be used.
        """
        found = checkpoint.find(self.run.checkpoints, self.options.allow_inexact)
        for problem in found.problems:
            log.warning("%s; going on from %s", problem, found.path.name if found.path else "none")
        if found.path is None:
            return None
        if found.inexact:
            self.not_exact.append(found.inexact)
        saved = checkpoint.load(found.path, found.damaged)
        before, now = saved.state["config"], self.file.resolved
        self.not_exact += identity.compare_config(before, now, self.options.override)
        log.info("going on from step %d", saved.step)
        return saved

    def _computed(self) -> "Mapping[str, Any]":
        """Return the frozen tensors that the method computed when the run began."""
        path = self.run.checkpoints / checkpoint.name(0) / "computed.safetensors"
        if not path.parent.is_dir():
            raise CheckpointError(f"{path.parent} is gone; it holds what the run began from.")
        damage = checkpoint.damage(path.parent)
        if wrong := damage.get("manifest.json") or damage.get(path.name):
            raise CheckpointError(f"{path.parent} cannot be used: {wrong}. The run began from it.")
        return files.load_tensors(path)

    def _remember(
        self, data: Mapping[str, Any], backbone: Backbone, saved: checkpoint.Checkpoint | None
    ) -> None:
        """Write environment.json; on a resume, compare with it first."""
        now: dict[str, Any] = {
            **provenance.record(self.accelerator.device),
            "seed": self.file.seed,
            "deterministic": self.file.deterministic,
            "data": dict(data),
            "backbone": dict(backbone.record),
        }
        step = None if saved is None else saved.step
        self.not_exact += identity.remember(self.run, now, step)

    def _attach(
        self, backbone: Backbone, task: Task, saved: checkpoint.Checkpoint | None
    ) -> Attached:
        """Put the method's adapter on the backbone."""
        import numpy as np

        file, training = self.file, self.file.training
        lengths = np.asarray(task.lengths("train"), dtype=np.int64)
        order = Order(
            lengths, training.batch_size, mix(file.seed, "order"), training.group_by_length
        )

        def batches() -> "Iterator[Batch]":
            device = self.accelerator.device
            for step in range(1, setting.num_steps + 1):
                batch = task.batch("train", order.batch(step), order.epoch(step))
                yield {name: tensor.to(device) for name, tensor in batch.items()}

        setting = Setting(
            mix(file.seed, "method"),
            num_steps(training, len(lengths)),
            order.steps_per_epoch,
            task.problem,
            batches,
            saved.state["attached"] if saved is not None else None,
            training.gradient_checkpointing,
        )
        if training.gradient_checkpointing:
            model: Any = backbone.model
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        attached: Attached = file.method.module.attach(backbone, file.method.config, setting)
        self._fits(attached, task, backbone)
        return attached

    def _fits(self, attached: Attached, task: Task, backbone: Backbone) -> None:
        """Refuse inputs that leave no room for the method's virtual tokens.

        Raises:
            ConfigError: an input and the virtual tokens are longer than the model takes.
        """
        if not attached.positions or backbone.max_length is None:
            return
        room = backbone.max_length - attached.positions
        splits = [split for split in ("train", "validation", "test") if task.size(split)]
        longest = max(max(task.lengths(split)) for split in splits)
        if longest > room:
            raise ConfigError(
                f"the method {self.file.method.name!r} takes {attached.positions} of the model's "
                f"{backbone.max_length} positions, and the longest input has {longest} tokens. "
                f"Set task.max_length to at most {room}."
            )

    def _best_by(self, task: Task) -> str:
        """Return the metric that names the best checkpoint.

        Raises:
            ConfigError: it is none of the task's.
        """
        known = (*task.metrics, "loss")
        best_by = self.file.training.best_by or task.metrics[0]
        if best_by not in known:
            raise ConfigError(
                f"training.best_by: {unknown('metric of this task', best_by, known)} "
                f"Add it to task.metrics."
            )
        return best_by

    def _loop(self, attached: Attached, task: Task, backbone: Backbone, stack: ExitStack) -> Loop:
        file = self.file
        best_by = self._best_by(task)
        higher = best_by != "loss" and metric(best_by).HIGHER_IS_BETTER
        trackers = stack.enter_context(Trackers(file.tracking, self.run.path))
        steps = num_steps(file.training, task.size("train"))
        start = max(checkpoint.steps(self.run.checkpoints), default=0)
        progress = stack.enter_context(Progress(steps, start, quiet=self.options.quiet))
        parts = Parts(
            self.run,
            attached,
            task,
            self.accelerator,
            lambda model: self._evaluate(model, task),
            higher,
            best_by,
            backbone.head,
            file.seed,
            self.signals,
            (progress.update, trackers.log),
            file.resolved,
        )
        lines, timing = Lines(self.run.metrics), Lines(self.run.timing)
        stack.callback(lines.close)
        stack.callback(timing.close)
        trainable, total = _count(attached.model)
        text = f"{attached.model}\n\n{trainable} of {total} parameters train\n"
        files.write_text(self.run.model, text)
        log.info("%d of %d parameters train, for %d steps", trainable, total, steps)
        trackers.start(self._facts(text), start)
        self.trackers = trackers
        return Loop(parts, file.training, lines, timing)

    def _facts(self, model: str) -> dict[str, Any]:
        return {
            "config": self.file.resolved,
            "model": model,
            "trainer_hash": provenance.short_hash("graftlab"),
            "peft_hash": provenance.short_hash("peft"),
            "device": provenance.device(self.accelerator.device),
        }

    def _predict(self, model: "nn.Module", task: Task, split: str) -> list[dict[str, Any]]:
        size = self.file.training.micro_batch_size or self.file.training.batch_size
        with self.accelerator.autocast():
            return evaluation.predict_split(model, task, split, size)

    def _evaluate(self, model: "nn.Module", task: Task) -> dict[str, float | None]:
        predictions = self._predict(model, task, "validation")
        scores = evaluation.score(predictions, task.metrics, metric)
        values = {name: score.value for name, score in scores.items()}
        return {"loss": evaluation.mean_loss(predictions), **values}

    def _select(self, loop: Loop) -> None:
        """Give the model the weights of the best checkpoint, if that is what was asked for."""
        from graftlab.training import resume

        position = loop.position
        if self.file.training.select == "last" or position.best_step in (0, position.step):
            return
        path = self.run.checkpoints / checkpoint.name(position.best_step)
        damage = checkpoint.damage(path)
        damage.pop("optimizer.safetensors", None)  # training is over
        if damage:
            wrong = "; ".join(damage.values())
            raise CheckpointError(f"the best checkpoint, {path}, cannot be used: {wrong}.")
        resume.put_back_best(loop, checkpoint.load(path, ["optimizer.safetensors"]))

    def _finish(self, loop: Loop, data: Data, seconds: float) -> None:
        """Write the adapter, the predictions and, last of all, the result."""
        model, task = loop.model.eval(), loop.parts.task
        self._save_adapter(model)
        metrics: dict[str, Any] = {}
        for split in ("validation", "test"):
            if not task.size(split):
                continue
            with self.signals.interruptible():
                predictions = self._predict(model, task, split)
            evaluation.write_predictions(self.run.predictions(split), predictions)
            scores = evaluation.score(predictions, task.metrics, metric)
            metrics[split] = {name: score._asdict() for name, score in scores.items()}
            metrics[split]["loss"] = {"value": _finite(evaluation.mean_loss(predictions))}
        result = self._result(loop, data) | {"metrics": metrics}
        result["seconds"]["this_session"] = seconds
        log.info("finished: %s", metrics)
        self.trackers.finish(result)
        files.write_json(self.run.result, result)

    def _save_adapter(self, model: "nn.Module") -> None:
        """Write the adapter beside and move it into its place, so that it is whole or not there."""
        partial = self.run.path / "adapter.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        self.file.method.module.save(model, partial)
        for path in partial.rglob("*"):
            files.sync(path)
        shutil.rmtree(self.run.adapter, ignore_errors=True)
        partial.rename(self.run.adapter)
        files.sync(self.run.path)

    def _result(self, loop: Loop, data: Data) -> dict[str, Any]:
        from graftlab.training import devices

        position = loop.position
        trainable, total = _count(loop.model)
        timing = read_lines(self.run.timing)
        last = self.file.training.select == "last" or not position.best_step
        return {
            "name": self.file.name,
            "task": self.file.resolved["task"].get("name") or self.file.task.name,
            "method": self.file.method.name,
            "backbone": self.file.resolved["backbone"].get("model") or self.file.backbone.name,
            "seed": self.file.seed,
            "steps": position.step,
            "ended_early": position.ended,
            "selected_step": position.step if last else position.best_step,
            "selected_by": None if last else loop.parts.best_by,
            "parameters": {"trainable": trainable, "total": total},
            "skipped_steps": position.skipped,
            "exact": not position.not_exact and not self._cut(position),
            "not_exact": position.not_exact + self._cut(position),
            "not_deterministic": self.warnings,
            "peak_memory_bytes": devices.peak_memory(self.accelerator.device),
            "seconds": {"training": sum(row["seconds"] for row in timing if "event" not in row)},
            "data": data.record.get("sizes", {}),
        }

    def _cut(self, position: Position) -> list[str]:
        """Return a reason if memory ran out and the micro-batch was made smaller."""
        training = self.file.training
        asked = training.micro_batch_size or training.batch_size
        if position.micro_batch_size >= asked:
            return []
        return [f"out of memory: micro-batch {position.micro_batch_size} instead of {asked}"]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _count(model: "nn.Module") -> tuple[int, int]:
    """Return how many numbers train, and how many there are."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)
