"""The scores of the model that a run trains, made by all of its processes in shares."""

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Prediction, Task, Writer, as_writer
from graftlab.rundir.records import ScoreRecord
from graftlab.runs import evaluation, prediction
from graftlab.training import resume
from graftlab.training.parallel.processes import Processes
from graftlab.training.parts import Scalars
from graftlab.training.signals import Signals
from graftlab.weights import surgery

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn


class Evaluator:
    """Predicts and scores the splits of a run's task; a signal ends it on all processes."""

    def __init__(
        self,
        task: Task,
        batch_size: int,
        accelerator: "Accelerator",
        signals: Signals,
        processes: Processes,
        quiet: bool = True,
    ) -> None:
        """Unless `quiet`, the first process tells how far it is with what takes long."""
        self.task, self.batch_size, self.accelerator = task, batch_size, accelerator
        self.signals, self.processes = signals, processes
        self._quiet = quiet or not processes.main
        self._last: tuple[bytes, list[Prediction]] | None = None  # by weights

    def validate(self, model: "nn.Module") -> Scalars:
        """Return the metrics of validation, `loss` among them, the same on every process; those of written
        texts too where some are written at evaluations.

        Raises:
            Stopped: on every process, where a signal came.
        """
        rows = self._predict(model, "validation")
        if self.processes.alone:
            self._last = _digest(model), rows
        writer = as_writer(self.task)
        asked = writer.at_evaluations if writer else ()
        texts = self._predict(model, "validation", writer, asked) if asked else []
        inputs = functools.partial(self.task.inputs, "validation")

        def scores() -> Scalars:
            with self.signals.interruptible():
                found = evaluation.score(rows, self.task.metrics, inputs)
                if writer and texts:
                    found |= evaluation.score(texts, writer.final_metrics, inputs)
            values = {name: score.value for name, score in found.items()}
            return {"loss": evaluation.mean_loss(rows), **values}

        return self.processes.on_main(scores)

    def record(self, model: "nn.Module", split: str, path: Path) -> dict[str, ScoreRecord]:
        """Write the predictions of a split, texts among them, to a file; return its scores."""
        writer = prediction.writer_of(self.task, split)
        rows = self._known(model, split) or self._predict(model, split, writer)
        inputs = functools.partial(self.task.inputs, split)

        def write() -> dict[str, ScoreRecord]:
            names = evaluation.metrics_at_end(self.task, split)
            explained = evaluation.explained(rows, names, inputs)
            prediction.write(path, explained)
            scores = evaluation.score(rows, names, inputs)
            loss = evaluation.mean_loss(rows)
            finite = loss is not None and math.isfinite(loss)
            found = {name: score.as_json() for name, score in scores.items()}
            return {**found, "loss": {"value": loss if finite else None}}

        return self.processes.on_main(write)

    def _known(self, model: "nn.Module", split: str) -> list[Prediction] | None:
        """Return what these very weights have just predicted, unless texts are to be written besides."""
        if self._last is None or split != "validation" or prediction.writer_of(self.task, split):
            return None
        digest, rows = self._last
        return rows if digest == _digest(model) else None

    def _predict(
        self,
        model: "nn.Module",
        split: str,
        writer: Writer | None = None,
        only: Sequence[int] | None = None,
    ) -> list[Prediction]:
        """Return a prediction for each example, made in shares."""
        processes = self.processes
        if processes.sharding.lockstep:
            mine = self._in_lockstep(model, split, writer, only)
        else:
            with processes.together(), self.signals.interruptible(), self.accelerator.autocast():
                mine = prediction.predict(
                    model,
                    self.task,
                    split,
                    self.batch_size,
                    only=only,
                    share=processes.share,
                    writer=writer,
                    quiet=self._quiet,
                )
        rows = [row for part in processes.gather(mine) for row in part]
        return sorted(rows, key=lambda row: row["index"])

    def _in_lockstep(
        self, model: "nn.Module", split: str, writer: Writer | None, only: Sequence[int] | None
    ) -> list[Prediction]:
        """Return this process's predictions; a signal ends this on all between two batches."""
        processes = self.processes

        def check() -> None:
            if self.signals.agreed(processes):
                raise self.signals.stopped()

        with processes.together(), processes.lockstep(), self.accelerator.autocast():
            mine = prediction.predict_in_lockstep(
                model,
                self.task,
                split,
                self.batch_size,
                device=self.accelerator.device,
                only=only,
                share=processes.share,
                writer=writer,
                before=check,
                quiet=self._quiet,
            )
            processes.sharding.settle(model)
        return mine


def _digest(model: "nn.Module") -> bytes:
    """Return a hash of all that a model's training changes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in (surgery.trainable(model) | resume.buffers(model)).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()
