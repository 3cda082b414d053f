"""A finished run put to use: its adapter on its backbone, for new inputs or a split of its task."""

import contextlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab import config, evaluation, files, registry, runfile
from graftlab.contracts import Backbone, Data, Problem, Task
from graftlab.errors import ConfigError, DataError, ModelError
from graftlab.metrics import Score
from graftlab.runfile import RunFile
from graftlab.runs import Run
from graftlab.seeds import mix

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("graftlab")
LOWER = {"bf16": "bfloat16", "fp16": "float16"}
"""Values of `training.precision` that evaluate in another number format than the weights'."""


def load(path: str | Path, device: str | None = None) -> "Adapted":
    """Return the adapted model of a finished run, in eval mode, as training left it.

    The data that it was trained on are not needed. `device` is a GPU where there is one, unless given.

    Raises:
        ConfigError: `path` is no run, or one without an adapter.
        ModelError: the backbone is not the one that the adapter was trained on, or cannot be loaded.
    """
    import torch

    run = find(Path(path))
    file = runfile.resolve(config.read(run.config), finished=True)
    before = files.read_json(run.environment)
    problem = _problem(file, before["data"])
    backbone: Backbone = file.backbone.module.load(
        file.backbone.config, problem, mix(file.seed, "backbone")
    )
    old, new = before["backbone"].get("sha256"), backbone.record.get("sha256")
    if old != new:
        raise ModelError(
            f"{path} was trained on other weights than {backbone.record.get('source')} holds now: "
            f"sha256 {old}, now {new}. Pin backbone.revision, or put the weights back."
        )
    model = file.method.module.load(backbone, file.method.config, run.adapter)
    used = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Adapted(run, file, problem, backbone, model.to(used).eval())


def find(path: Path) -> Run:
    """Return the run at `path`, which has an adapter.

    Raises:
        ConfigError: it is no run, or has none yet.
    """
    run = Run(path)
    if not run.started:
        inside = (path.parent / "config.yaml").is_file()
        hint = f" Did you mean {path.parent}?" if inside else ""
        raise ConfigError(f"{path} is no run directory: it has no config.yaml.{hint}")
    if not run.adapter.is_dir() or not run.environment.is_file():
        raise ConfigError(f"{path} has no adapter yet. Finish it with `graftlab resume {path}`.")
    return run


def _problem(file: RunFile, data: Mapping[str, Any]) -> Problem:
    """Return what the model puts out, with the labels that the run has recorded: they may have been
    found in data that are gone."""
    if data["labels"]:
        return Problem(data.get("problem", "classes"), tuple(data["labels"]))
    problem: Problem = file.task.module.problem(file.task.config)
    return problem


@dataclass(frozen=True)
class Adapted:
    """A backbone with the adapter of a run."""

    run: Run
    file: RunFile
    problem: Problem
    backbone: Backbone
    model: "nn.Module"

    @property
    def batch_size(self) -> int:
        """The run's own, which gives the same bits as it got: sums in other batches round otherwise."""
        return self.file.training.micro_batch_size or self.file.training.batch_size

    def predict(
        self, inputs: "str | Path | Sequence[Any]", batch_size: int | None = None
    ) -> list[dict[str, Any]]:
        """Return for each input its `index`, `label` (the class's integer, or the score), `name` and
        `probabilities` by class name; `file` where it came from a file of its own.

        `inputs` is a text, a list of texts, pairs or dicts with the task's columns, or the Path of a file
        of them (`index` counts its lines or rows from 0). How many were cut to the model's length is
        logged as a warning.

        Raises:
            DataError: an input cannot be read.
            ModelError: an output is not finite.
        """
        part = self.file.task
        rows = part.module.read_inputs(part.config, inputs)
        task = self._bind(Data({"input": rows}, self.problem))
        record = getattr(task, "record", {})
        if cut := record.get("truncated", {}).get("input"):
            log.warning(
                "%d of %d inputs are longer than %d tokens: the rest of them is not read",
                cut, len(rows), record["max_length"],
            )  # fmt: skip
        predictions = self._predict(task, "input", batch_size)
        return [self._answer(row, found) for row, found in zip(rows, predictions, strict=True)]

    def _answer(self, row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        if self.problem.kind == "tokens" and not self.problem.labels:
            return {"index": row["index"], "completion": found["prediction"]}
        label, shares = found["prediction"], found.get("probabilities", ())
        if not all(math.isfinite(x) for x in (*shares, label) if isinstance(x, float)):
            raise ModelError(
                f"the output for input {row['index']} is not finite: the adapter in {self.run.path} "
                f"is of no use, or training.precision is too low for this backbone."
            )
        own = [str(value) for value in row.values() if isinstance(value, Path)]
        answer = {"index": row["index"], **({"file": own[0]} if own else {}), "label": label}
        if not self.problem.labels:
            return answer
        probabilities = dict(zip(self.problem.labels, shares, strict=True))
        return answer | {"name": self.problem.labels[label], "probabilities": probabilities}

    def evaluate(
        self, split: str = "test", batch_size: int | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, Score]]:
        """Return predictions and scores on a split of the run's task.

        Raises:
            DataError: the split has no examples, or the data are gone or have changed since the run.
        """
        part = self.file.task
        if wrong := part.module.check(part.config):
            raise DataError(" ".join(wrong))
        data = part.module.read(part.config, self.file.paths, self.file.seed)
        before = files.read_json(self.run.environment)["data"].get("fingerprint")
        if data.record.get("fingerprint") != before:
            raise DataError(
                f"the task's data have changed since {self.run.path} was trained "
                f"(fingerprint {data.record.get('fingerprint')}, was {before}). Put them back."
            )
        task = self._bind(data)
        if split not in data.splits or not task.size(split):
            known = ", ".join(name for name in data.splits if data.splits[name])
            raise DataError(f"the task has no split {split!r}. It has: {known}.")
        predictions = self._predict(task, split, batch_size)
        names = evaluation.metrics_at_end(task, split)
        scores = evaluation.score(predictions, names, lambda name: registry.find("metrics", name))
        return predictions, scores

    def _predict(self, task: Task, split: str, batch_size: int | None) -> list[dict[str, Any]]:
        with self._precision():
            return evaluation.predict_split(
                self.model, task, split, batch_size or self.batch_size, complete=True
            )

    def _precision(self) -> "contextlib.AbstractContextManager[Any]":
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

    def _bind(self, data: Data) -> Task:
        part = self.file.task
        bound: Task = part.module.bind(
            data, self.backbone, part.config, mix(self.file.seed, "task")
        )
        return bound
