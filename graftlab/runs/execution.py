"""One run carried out: data, backbone, method, training, scores. The only module that knows all the parts."""

import functools
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab import registry
from graftlab.contracts import Attached, Backbone, Data, Task
from graftlab.errors import ConfigError
from graftlab.rundir import files, provenance
from graftlab.rundir.run import Lines, NoLines, Run
from graftlab.runfile import RunFile
from graftlab.runs import attachment, chosen_layer, evaluation, identity, outcome
from graftlab.seeds import mix, seed_everything
from graftlab.training import checkpoint
from graftlab.training import config as training
from graftlab.training.loop import Loop
from graftlab.training.parallel.processes import Processes
from graftlab.training.parts import Parts
from graftlab.training.progress import Progress
from graftlab.training.signals import Signals
from graftlab.training.trackers import Trackers

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

log = logging.getLogger("graftlab")
SPLITS = ("validation", "test")  # that are scored at the end


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

    def __init__(
        self,
        run: Run,
        file: RunFile,
        options: Options,
        signals: Signals,
        processes: Processes | None = None,
    ) -> None:
        self.run, self.file, self.options, self.signals = run, file, options, signals
        self.processes = processes or Processes()
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
        self.accelerator = devices.accelerator(
            file.training.precision, keep_casts=not self.processes.sharding.lockstep
        )
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
        evaluation.rehearse(task, data.splits, metric)
        # an adapter outlives the data
        record = {**data.problem.as_json(), **data.record, **getattr(task, "record", {})}
        log.info("data: %s", record.get("sizes"))
        self._remember(record, backbone, saved)
        if not self.processes.sharding.lockstep:  # else it may be too large for one device
            backbone.model.to(self.accelerator.device)
        self.signals.check()
        if chosen_layer.wanted(file):
            loaded = chosen_layer.Loaded(data, backbone, task)

            def choose() -> int:
                with self.signals.interruptible():  # but not what processes tell each other
                    return chosen_layer.choose(file, self.run.selection, loaded)

            file = self.file = chosen_layer.with_layer(file, self.processes.on_main(choose))
        restored = None if saved is None else saved.state["attached"]
        attached = attachment.attach(file, backbone, task, restored, self.processes)
        self._check_writing(attached, task)
        with ExitStack() as stack:
            loop = self._loop(attached, task, backbone, stack)
            resume.start(loop)
            if saved is not None:
                resume.restore(loop, saved)
                reasons = [*loop.position.not_exact, *self.not_exact]
                # each once, over all resumes
                loop.position.not_exact = list(dict.fromkeys(reasons))
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
        found = self.processes.on_main(
            lambda: checkpoint.find(self.run.checkpoints, self.options.allow_inexact)
        )
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

    def _check_writing(self, attached: Attached, task: Task) -> None:
        """Refuse what would be written by one forward pass more in one process than in another.

        Raises:
            ConfigError: texts are to be written behind virtual tokens, prompts of each length for themselves.
        """
        writes = any(evaluation.metrics_at_end(task, split) != task.metrics for split in SPLITS)
        if self.processes.sharding.lockstep and attached.positions and writes:
            raise ConfigError(
                f"the method {self.file.method.name!r} puts virtual tokens before a prompt, behind which "
                f"processes with shards cannot write texts in step. Leave the texts out by "
                f"task.generation.splits: [], or start with `accelerate launch --multi_gpu`."
            )

    def _remember(
        self, data: Mapping[str, Any], backbone: Backbone, saved: checkpoint.Checkpoint | None
    ) -> None:
        """Write environment.json; on a resume, compare with it first."""
        now: dict[str, Any] = {
            **provenance.record(self.accelerator.device),
            "seed": self.file.seed,
            "processes": self.processes.share.world,
            "sharding": self.processes.sharding.name,
            "deterministic": self.file.deterministic,
            "data": dict(data),
            "backbone": dict(backbone.record),
        }
        step = None if saved is None else saved.step
        identity.compare_processes(now, self.file.resolved, self.processes)
        self.not_exact += self.processes.on_main(lambda: identity.remember(self.run, now, step))

    def _loop(self, attached: Attached, task: Task, backbone: Backbone, stack: ExitStack) -> Loop:
        file = self.file
        best_by = training.best_by(file.training, task.metrics)
        higher = evaluation.higher_is_better(best_by, task.metrics, metric)
        trainable, total = outcome.count(attached.model)
        text = f"{attached.model}\n\n{trainable} of {total} parameters train\n"
        steps = training.num_steps(file.training, task.size("train"))
        log.info("%d of %d parameters train, for %d steps", trainable, total, steps)
        sinks: tuple[Callable[..., None], ...] = ()
        lines: Lines | NoLines = NoLines()
        timing: Lines | NoLines = NoLines()
        if self.processes.main:
            files.write_text(self.run.model, text)
            sinks = self._sinks(steps, text, stack)
            lines, timing = Lines(self.run.metrics), Lines(self.run.timing)
            stack.callback(lines.close)
            stack.callback(timing.close)
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
            sinks,
            file.resolved,
            self.processes,
        )
        return Loop(parts, file.training, lines, timing)

    def _sinks(self, steps: int, model: str, stack: ExitStack) -> "tuple[Callable[..., None], ...]":
        """Open the trackers and the progress bar; return what tells them of a step."""
        start = max(checkpoint.steps(self.run.checkpoints), default=0)
        self.trackers = stack.enter_context(Trackers(self.file.tracking, self.run.path))
        progress = stack.enter_context(Progress(steps, start, quiet=self.options.quiet))
        self.trackers.start(self._facts(model), start)
        if shown := chosen_layer.shown(self.run.selection):
            self.trackers.show(shown)
        return progress.update, self.trackers.log

    def _facts(self, model: str) -> dict[str, Any]:
        return {
            "config": self.file.resolved,
            "model": model,
            "trainer_hash": provenance.short_hash("graftlab"),
            "peft_hash": provenance.short_hash("peft"),
            "device": provenance.device(self.accelerator.device),
        }

    def _predict(
        self, model: "nn.Module", task: Task, split: str, complete: bool = False
    ) -> list[dict[str, Any]]:
        """Return a prediction for each example, made in shares; a signal ends this on all processes."""
        size = self.file.training.micro_batch_size or self.file.training.batch_size
        if self.processes.sharding.lockstep:
            mine = self._predict_in_step(model, task, split, size, complete)
        else:
            together, share = self.processes.together(), self.processes.share
            with together, self.signals.interruptible(), self.accelerator.autocast():
                mine = evaluation.predict_split(
                    model, task, split, size, share=share, complete=complete
                )
        rows = [row for part in self.processes.gather(mine) for row in part]
        return sorted(rows, key=lambda row: row["index"])

    def _predict_in_step(
        self, model: "nn.Module", task: Task, split: str, size: int, complete: bool
    ) -> list[dict[str, Any]]:
        """Return this process's predictions; a signal ends this on all between two batches."""
        processes = self.processes

        def check() -> None:
            if self.signals.agreed(processes):
                raise self.signals.stopped()

        with processes.together(), processes.lockstep(), self.accelerator.autocast():
            mine = evaluation.predict_in_step(
                model,
                task,
                split,
                size,
                device=self.accelerator.device,
                share=processes.share,
                complete=complete,
                before=check,
            )
            processes.sharding.settle(model)
        return mine

    def _evaluate(self, model: "nn.Module", task: Task) -> dict[str, float | None]:
        predictions = self._predict(model, task, "validation")

        def scores() -> dict[str, float | None]:
            with self.signals.interruptible():
                found = evaluation.score(predictions, task.metrics, metric)
            values = {name: score.value for name, score in found.items()}
            return {"loss": evaluation.mean_loss(predictions), **values}

        return self.processes.on_main(scores)

    def _select(self, loop: Loop) -> None:
        """Give the model the weights of the best checkpoint, if that is what was asked for."""
        from graftlab.training import resume

        step = loop.position.best_step
        if self.file.training.select == "best" and step not in (0, loop.position.step):
            resume.put_back_best(loop, step)

    def _finish(self, loop: Loop, data: Data, seconds: float) -> None:
        """Write the adapter, the predictions and, last of all, the result."""
        from graftlab.training import devices

        model, task, processes = loop.model.eval(), loop.parts.task, self.processes
        with processes.lockstep(), processes.sharding.whole(model):
            processes.on_main(lambda: self._save_adapter(model, task))
        metrics: dict[str, Any] = {}
        for split in SPLITS:
            if task.size(split):
                predictions = self._predict(model, task, split, complete=True)
                write = functools.partial(self._score, split, predictions, task)
                metrics[split] = processes.on_main(write)
        held = processes.gather(devices.peak_memory(self.accelerator.device))
        with processes.together():
            if not processes.main:
                return
            result = outcome.result(self.file, loop, self.warnings)
            result |= {"peak_memory_bytes": max(held), "data": data.record.get("sizes", {})}
            result |= {"metrics": metrics}
            result["seconds"]["this_session"] = seconds
            log.info("finished: %s", metrics)
            self.trackers.finish(result)
            files.write_json(self.run.result, result)

    def _score(
        self, split: str, predictions: list[dict[str, Any]], task: Task
    ) -> dict[str, dict[str, Any]]:
        """Write the predictions of a split and return its scores."""
        names = evaluation.metrics_at_end(task, split)
        rows = evaluation.explained(predictions, names, metric)
        evaluation.write_predictions(self.run.predictions(split), rows)
        scores = evaluation.score(predictions, names, metric)
        loss = evaluation.mean_loss(predictions)
        finite = loss is not None and math.isfinite(loss)
        found = {name: dict(score._asdict()) for name, score in scores.items()}
        return {**found, "loss": {"value": loss if finite else None}}

    def _save_adapter(self, model: "nn.Module", task: Task) -> None:
        """Write the adapter beside and move it into its place, so that it is whole or not there.

        `template.json` says what prompts it was trained on, where it has any.
        """
        partial = self.run.path / "adapter.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        self.file.method.module.save(model, partial)
        if template := getattr(task, "template", None):
            files.write_json(partial / "template.json", template)
        if (chats := getattr(self.file.task.config, "chat_template_file", None)) is not None:
            shutil.copyfile(chats, self.run.path / chats.name)  # wherever the run goes
        for path in partial.rglob("*"):
            files.sync(path)
        shutil.rmtree(self.run.adapter, ignore_errors=True)
        partial.rename(self.run.adapter)
        files.sync(self.run.path)
