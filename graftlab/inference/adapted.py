"""A finished run put to use: its adapter on its backbone, for new inputs or a split of its task."""

import contextlib
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab import runfile
from graftlab.contracts import Backbone, Data, Problem, Score, Task
from graftlab.data import foreign_code
from graftlab.data.splits import no_split
from graftlab.errors import Argument, ConfigError, ModelError, Place
from graftlab.inference import vectors
from graftlab.inference.inputs import Inputs
from graftlab.inference.inputs import read as inputs_of
from graftlab.inference.settings import settings
from graftlab.inference.vectors import AS_RECORDED, Reading
from graftlab.rundir import run as rundir
from graftlab.rundir.run import Run
from graftlab.runfile import Part, RunFile
from graftlab.runs import evaluation, integrity, kept_step, material, prediction
from graftlab.weights import packages

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("graftlab")
LOWER = {"bf16": "bfloat16", "fp16": "float16"}
"""Values of `training.precision` that evaluate in another number format than the weights'."""


def load(
    path: str | Path,
    device: str | None = None,
    step: int | None = None,
    allow_code: bool = False,
    quiet: bool = True,
) -> "Adapted":
    """Return the adapted model of a finished run, in eval mode, as training left it; with `step` as it was at
    that one of the steps whose checkpoints are kept, of a run that is not finished too.

    The data that it was trained on are not needed. `device` is a GPU where there is one, unless given. With
    `allow_code` a function of another package may make the rows that `evaluate` reads. Unless `quiet`, it
    tells on the standard error how far it is with predictions that take long.

    Raises:
        ConfigError: `path` is no run, or one without an adapter, or the step's checkpoint is not kept.
        CheckpointError: a file of it is damaged.
        ModelError: the adapter is damaged, or a number in it is not finite; the backbone is not the one that
            it was trained on, or cannot be loaded.
    """
    run = rundir.find(Path(path)) if step is None else kept_step.find(Path(path), step)
    file = runfile.of_run(run)
    problem = problem_of(file, run.read_environment()["data"])
    backbone = backbone_of(run, file, problem)
    if step is not None:
        model = kept_step.load(run, file, problem, backbone, step)
    else:
        integrity.check_adapter(run)
        with packages.kept_in(file.paths.cache):
            model = file.method.module.load(backbone, file.method.config, run.adapter_folder)
    model = model.to(device_of(device)).eval()
    return Adapted(run, file, problem, backbone, model, step, allow_code, quiet)


def backbone_of(run: Run, file: RunFile, problem: Problem) -> Backbone:
    """Return the backbone of a run as it was before its adapter.

    Raises:
        ModelError: it is not the one that the run was trained on, or cannot be loaded.
    """
    backbone = material.backbone(file, problem)
    old = run.read_environment()["backbone"].get("sha256")
    new = backbone.record.get("sha256")
    if old != new:
        raise ModelError(
            f"{run.path} was trained on other weights than {backbone.record.get('source')} holds now: "
            f"sha256 {old}, now {new}. Pin backbone.revision, or put the weights back.",
            kind="other_weights",
        )
    return backbone


def device_of(wanted: str | None) -> str:
    """Return the device that is wanted, or else a GPU where there is one."""
    import torch

    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def problem_of(file: RunFile, data: Mapping[str, object]) -> Problem:
    """Return what the model puts out, with the labels that the run has recorded: they may have been
    found in data that are gone."""
    if data["labels"] or data.get("parts"):
        return Problem.from_json(data)
    problem: Problem = file.task.module.problem(file.task.config)
    return problem


def _wanted(problem: Problem) -> str:
    labels = ", ".join(problem.labels)
    return {"classes": f"the classes {labels}", "regression": "scores"}.get(
        problem.kind, f"the likelihoods of {labels}" if labels else "texts"
    )


@dataclass(frozen=True)
class Adapted:
    """A backbone with the adapter of a run."""

    run: Run
    file: RunFile
    problem: Problem
    backbone: Backbone
    model: "nn.Module"
    step: int | None = None
    """Of the checkpoint that its weights are from; None: what the run has come to."""
    allow_code: bool = False
    """Whether a function of another package that the run's file names may make its rows."""
    quiet: bool = True
    """Whether nothing is told of predictions that take long."""

    def named(self, what: str) -> str:
        """Return the name of a file about this model: of a step it says so."""
        return what if self.step is None else f"{what}-step-{self.step:06d}"

    @property
    def reads_vectors(self) -> bool:
        """Whether what the model is asked about are vectors."""
        return self.file.task.module.VECTORS

    @property
    def batch_size(self) -> int:
        """The run's own, which gives the same bits as it got: sums in other batches round otherwise."""
        return self.file.training.micro_batch_size or self.file.training.batch_size

    def predict(
        self,
        inputs: "str | Path | Sequence[object]",
        batch_size: int | None = None,
        raw: bool = False,
        task: str | None = None,
        reading: Reading = AS_RECORDED,
        **generation: object,
    ) -> list[dict[str, object]]:
        """Return for each input its `index`, `label` (the class's integer, or the score), `name` and
        `probabilities` by class name; `file` where it came from a file of its own. Of a task whose answers
        are texts, its `index` and `completion`: a text, or a list of them where there are `samples`.

        `inputs` is a text, a list of texts, pairs or dicts with the task's columns, or the Path of a file
        of them (`index` counts its lines or rows from 0). How many were cut to the model's length is
        logged as a warning. `generation` are fields of the section `task.generation` that are other than
        in the run; `raw` gives the texts to the model as they are, without the run's template; `task` names
        one of a mixture, where the inputs do not.

        Of a run that reads vectors `inputs` are vectors (a list, an array, the Path of a file), or texts,
        which become such by the model that the run has recorded; `task` is a task type, and `reading` has
        words of one's own instead, and another place of that model.

        Raises:
            ConfigError: `raw` or `generation` of a task that writes no texts, or a value is not allowed.
            DataError: an input cannot be read.
            ModelError: an output is not finite; the embedding model of texts is not there, or another.
        """
        section = settings(self.file, raw, generation)
        rows = inputs_of(self.run, self.file, section, Inputs(inputs, task, reading))
        rows = vectors.embedded(self.run, rows, reading) if self.reads_vectors else rows
        bound = self.bind(Data({"input": rows}, self.problem), section)
        record = bound.record
        lost = (record.get(key, {}).get("input", 0) for key in ("truncated", "too_long"))
        if cut := sum(lost):
            log.warning(
                "%d of %d inputs are longer than %d tokens: the rest of them is not read",
                cut, len(rows), record["max_length"],
            )  # fmt: skip
        predictions = self._predict(bound, "input", batch_size)
        return [self._answer(row, found) for row, found in zip(rows, predictions, strict=True)]

    def _answer(self, row: Mapping[str, object], found: Mapping[str, Any]) -> dict[str, object]:
        problem = self.problem.of(found)  # of a mixture: the row's own task
        which = {"index": row["index"], **{k: v for k, v in found.items() if k == "task"}}
        if problem.kind == "tokens" and not problem.labels:
            return which | {"completion": found["prediction"]}
        label, shares = found["prediction"], found.get("probabilities", ())
        if not all(math.isfinite(x) for x in (*shares, label) if isinstance(x, float)):
            raise ModelError(
                f"the output for input {row['index']} is not finite: the adapter in {self.run.path} "
                f"is of no use, or training.precision is too low for this backbone."
            )
        own = [str(value) for value in row.values() if isinstance(value, Path)]
        answer = {**which, **({"file": own[0]} if own else {}), "label": label}
        if not problem.labels:
            return answer
        probabilities = dict(zip(problem.labels, shares, strict=True))
        return answer | {"name": problem.labels[label], "probabilities": probabilities}

    def evaluate(
        self, split: str = "test", batch_size: int | None = None, other: Part | None = None
    ) -> tuple[list[dict[str, object]], dict[str, Score]]:
        """Return predictions and scores on a split of the run's task, or of another one.

        Raises:
            ConfigError: the other task wants something else of the model.
            DataError: the split has no examples, or the data are gone or have changed since the run.
        """
        task, _, predictions = self.predictions(split, batch_size, other)
        names = evaluation.metrics_at_end(task, split)
        inputs = functools.partial(task.inputs, split)
        return predictions, evaluation.score(predictions, names, inputs)

    def predictions(
        self, split: str, batch_size: int | None = None, other: Part | None = None
    ) -> tuple[Task, Data, list[dict[str, object]]]:
        """Return the run's task, or another one, its rows, and the predictions on a split of it. Before any
        is made its metrics are tried.

        Raises:
            ConfigError: the other task wants something else of the model.
            DataError: the split has no examples, or the data are gone or have changed since the run.
        """
        with foreign_code.allowed(self.allow_code):
            material.check_code(replace(self.file, task=other) if other else self.file)
            task, data = self._other(other) if other else self._own()
        if split not in data.splits or not task.size(split):
            raise no_split(split, [name for name in data.splits if data.splits[name]])
        evaluation.rehearse(task, {split: data.splits[split]})
        return task, data, self._predict(task, split, batch_size)

    def _own(self) -> tuple[Task, Data]:
        data = material.read_again(self.file, self.run)
        return self.bind(data), data

    def _other(self, part: Part) -> tuple[Task, Data]:
        """Return another task, which need not have anything to train on."""
        file = replace(self.file, task=part)
        data = material.read(file)
        if data.problem != self.problem:
            wanted, given = _wanted(data.problem), _wanted(self.problem)
            raise ConfigError(
                f"that task wants {wanted}, but {self.run.path} puts out {given}.",
                ("Give one that wants the same.",),
                place=Place(argument=Argument("task")),
                kind="conflict",
                given=given,
                allowed=wanted,
            )
        return material.bind(file, data, self.backbone), data

    def _predict(self, task: Task, split: str, batch_size: int | None) -> list[dict[str, object]]:
        with self.precision():
            writer = prediction.writer_of(task, split)
            size = batch_size or self.batch_size
            return prediction.predict(
                self.model, task, split, size, writer=writer, quiet=self.quiet
            )

    def precision(self) -> "contextlib.AbstractContextManager[object]":
        """Return the context that the run evaluated in; float32 where the device knows no float16."""
        import torch

        device = next(self.model.parameters()).device.type
        lower = LOWER.get(self.file.training.precision)
        if lower is None:
            return contextlib.nullcontext()
        if lower == "float16" and device == "cpu":
            log.warning(
                "the run computed in fp16; a CPU computes in float32: last digits may differ"
            )
            return contextlib.nullcontext()
        return torch.autocast(device, getattr(torch, lower))

    def bind(self, data: Data, section: object = None) -> Task:
        """Return rows as the run's task, with its own section unless another is given."""
        return material.bind(self.file, data, self.backbone, section)
