"""One run carried out: data, backbone, method, training, scores. The only module that knows all the parts."""

import functools
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from graftlab import config
from graftlab.contracts import NOTED, Attached, Note, Task, read_notes, written
from graftlab.errors import ConfigError
from graftlab.rundir import files, provenance
from graftlab.rundir.lines import Lines, Mark, NoLines
from graftlab.rundir.records import Compared, Last, Result
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile
from graftlab.runs import (
    attachment,
    chosen_layer,
    class_report,
    costs,
    evaluation,
    found_labels,
    identity,
    last_step,
    material,
    outcome,
)
from graftlab.runs.evaluator import Evaluator
from graftlab.runs.material import Material
from graftlab.runs.options import SPLITS, Options
from graftlab.seeds import seed_everything
from graftlab.training import allocation, checkpoint
from graftlab.training import config as training
from graftlab.training.loop import Loop
from graftlab.training.parallel.processes import Processes
from graftlab.training.parts import Parts
from graftlab.training.progress import Progress, tell
from graftlab.training.signals import Signals
from graftlab.training.trackers import Trackers

log = logging.getLogger("graftlab")
# Figures of `data.record` that stand in the first line of metrics.jsonl, under the names of JELLY's trainer.
TRAIN_SIZES = ("validation/original_train_data_size", "validation/sliced_train_data_size")


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
        self.not_exact: list[Note] = []

    def carry_out(self) -> None:
        """Train to the end, then score; `result.json` is written last."""
        from graftlab.training import devices

        with allocation.uncollected():
            import torch  # noqa: F401

        with devices.deterministic(self.file.deterministic) as self.warnings:
            self._carry_out()

    def _carry_out(self) -> None:
        from graftlab.training import devices

        began = time.perf_counter()
        seed_everything(self.file.seed)
        self.accelerator = devices.accelerator(
            self.file.training.precision, keep_casts=not self.processes.sharding.lockstep
        )
        saved = self._saved()
        loaded = self._load(saved)
        self._choose_layer(loaded)
        restored = None if saved is None else saved.state["attached"]
        attached = attachment.attach(
            self.file, loaded.backbone, loaded.task, restored, self.processes
        )
        self._check_writing(attached, loaded.task)
        size = self.file.training.micro_batch_size or self.file.training.batch_size
        self.evaluator = Evaluator(
            loaded.task, size, self.accelerator, self.signals, self.processes, self.options.quiet
        )
        with ExitStack() as stack:
            if self.accelerator.device.type == "cpu":
                stack.enter_context(allocation.kept())
            loop = self._loop(attached, loaded, stack)
            self._begin(loop, saved, loaded.record)
            loop.run()
            last: Last | None = None
            if last_step.is_replaced(loop):
                if self.options.compared:
                    last = last_step.score(self.evaluator, loop, self.run, self.options.splits)
                loop.restore_best()
            self._finish(loop, loaded, began, last)

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

    def _load(self, saved: checkpoint.Checkpoint | None) -> Material:
        """Return data, backbone and task; environment.json then says what they are."""
        loaded = material.load(self.file, check=self.signals.check)
        if self.options.data is not None:
            identity.compare_data(self.options.data, loaded.data.record)
        for record in (loaded.backbone.record, loaded.record):
            for note in read_notes(record.get("notes", ())):
                log.warning("%s", note, extra=NOTED)
        evaluation.rehearse(loaded.task, loaded.data.splits)
        log.info("data: %s", loaded.record.get("sizes"))
        now = identity.record(self.file, self.run, loaded, self.accelerator.device, self.processes)
        if saved is None and (found := self._name_classes(loaded)):
            now["found"] = found
        identity.compare_processes(now, self.file.resolved, self.processes)
        self.not_exact += self.processes.on_main(lambda: identity.remember(self.run, now, saved))
        if not self.processes.sharding.lockstep:  # else it may be too large for one device
            loaded.backbone.model.to(self.accelerator.device)
        self.signals.check()
        return loaded

    def _name_classes(self, loaded: Material) -> list[str]:
        """Put class names that stand in the data alone into config.yaml; return their keys."""
        found = found_labels.of(self.file, loaded.data.problem)
        self.file = found_labels.put(self.file, found)
        if found and self.processes.main:
            files.write_text(self.run.config, config.dump(self.file.resolved))
        return list(found)

    def _choose_layer(self, loaded: Material) -> None:
        """Put a number where the run file leaves a layer of a large model to be chosen."""
        if not chosen_layer.wanted(self.file):
            return

        def choose() -> int:
            with self.signals.interruptible():  # but not what processes tell each other
                say = functools.partial(tell, quiet=self.options.quiet)
                return chosen_layer.choose(self.file, self.run.selection, loaded, say)

        self.file = chosen_layer.with_layer(self.file, self.processes.on_main(choose))

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

    def _loop(self, attached: Attached, loaded: Material, stack: ExitStack) -> Loop:
        file, task = self.file, loaded.task
        scored = evaluation.metrics_at_evaluations(task)
        best_by = training.best_by(file.training, scored)
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
            run=self.run,
            attached=attached,
            task=task,
            accelerator=self.accelerator,
            evaluate=self.evaluator.validate,
            higher_is_better=evaluation.higher_is_better(best_by, scored),
            best_by=best_by,
            head=loaded.backbone.head,
            seed=file.seed,
            signals=self.signals,
            sinks=sinks,
            config=file.resolved,
            environment=identity.summed(self.run) if self.processes.main else {},
            processes=self.processes,
        )
        loop = Loop(parts, file.training, lines, timing)
        stack.callback(lambda: [table.close() for table in loop.tables.values()])
        return loop

    def _sinks(self, steps: int, model: str, stack: ExitStack) -> "tuple[Callable[..., None], ...]":
        """Open the trackers and the progress bar; return what tells them of a step."""
        start = max(checkpoint.steps(self.run.checkpoints), default=0)
        self.trackers = stack.enter_context(Trackers(self.file.tracking, self.run.path))
        progress = stack.enter_context(Progress(steps, start, quiet=self.options.quiet))
        facts = {
            "config": self.file.resolved,
            "model": model,
            "trainer_hash": provenance.short_hash("graftlab"),
            "peft_hash": provenance.short_hash("peft"),
            "device": provenance.device(self.accelerator.device),
        }
        self.trackers.start(facts, start)
        if shown := chosen_layer.shown(self.run.selection):
            self.trackers.show(shown)
        shows: tuple[Callable[..., None], ...] = () if self.options.quiet else (progress.update,)
        return (*shows, self.trackers.log) if self.file.tracking.to else shows

    def _begin(
        self, loop: Loop, saved: checkpoint.Checkpoint | None, record: dict[str, Any]
    ) -> None:
        """Bring the loop to where the run stands."""

        loop.begin()
        if saved is None:
            for lines in (loop.lines, *loop.tables.values()):
                lines.cut(Mark(0, None))
            loop.tell({key: record[key] for key in TRAIN_SIZES if key in record})
            return
        loop.restore(saved)
        known = loop.position.not_exact  # each once, over all resumes
        known += [note for note in self.not_exact if note not in known]

    def _finish(self, loop: Loop, loaded: Material, began: float, last: Last | None) -> None:
        """Write the adapter, the predictions and, last of all, the result."""
        from graftlab.training import devices

        seconds = time.perf_counter() - began
        model, task, processes = loop.model.eval(), loaded.task, self.processes
        with processes.lockstep(), processes.sharding.whole(model):
            processes.on_main(lambda: outcome.write_adapter(self.run, self.file, model, task))
        metrics = {
            split: evaluation.in_order(
                self.evaluator.record(model, split, self.run.predictions(split)),
                self.file.task.config,
            )
            for split in self.options.splits
            if task.size(split)
        }
        held = processes.gather(devices.peak_memory(self.accelerator.device))
        with processes.together():
            if not processes.main:
                return
            known = outcome.result(self.file, loop, self.warnings)
            known["seconds"]["this_session"] = seconds
            sizes = loaded.data.record.get("sizes", {})
            classes = class_report.of_run(self.run, task.problem, metrics)
            notes = class_report.warnings(classes)
            for note in notes:
                log.warning("%s", note)
            beside: Compared = {} if last is None else {"last": last}
            if self.options.compared and processes.alone and not processes.sharding.lockstep:
                beside["costs"] = costs.measure(loop, self.file, self.run, self.accelerator)
            result: Result = {
                **known,
                **beside,
                "peak_memory_bytes": max(held),
                "data": sizes,
                "metrics": metrics,
                "classes": classes,
                "notes": written(notes),
            }
            log.info("finished: %s", metrics)
            self.trackers.finish(result)
            self.run.leave(result)
