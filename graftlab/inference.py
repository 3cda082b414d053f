"""A finished run put to use: its adapter on its backbone, for new inputs or a split of its task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab import config, evaluation, files, registry, runfile
from graftlab.contracts import Backbone, Data, Task
from graftlab.errors import ConfigError, DataError, ModelError
from graftlab.metrics import Score
from graftlab.runfile import RunFile
from graftlab.runs import Run
from graftlab.seeds import mix

if TYPE_CHECKING:
    from torch import nn


def load(path: str | Path, device: str | None = None) -> "Adapted":
    """Return the adapted model of a finished run, in eval mode, as training left it.

    Raises:
        ConfigError: `path` is no run, or one without an adapter.
        ModelError: the backbone is not the one that the adapter was trained on, or cannot be loaded.
    """
    import torch

    run = Run(Path(path))
    if not run.started:
        raise ConfigError(f"{path} is no run directory: it has no config.yaml.")
    if not run.adapter.is_dir():
        raise ConfigError(f"{path} has no adapter yet. Finish it with `graftlab resume {path}`.")
    file = runfile.resolve(config.read(run.config))
    problem = file.task.module.problem(file.task.config)
    backbone: Backbone = file.backbone.module.load(
        file.backbone.config, problem, mix(file.seed, "backbone")
    )
    before = files.read_json(run.environment)["backbone"]
    if before.get("sha256") != backbone.record.get("sha256"):
        raise ModelError(
            f"{path} was trained on other weights than {backbone.record.get('source')} holds now: "
            f"sha256 {before.get('sha256')}, now {backbone.record.get('sha256')}. "
            f"Pin backbone.revision, or put the weights back."
        )
    model = file.method.module.load(backbone, file.method.config, run.adapter)
    used = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Adapted(run, file, backbone, model.to(used).eval())


@dataclass(frozen=True)
class Adapted:
    """A backbone with the adapter of a run."""

    run: Run
    file: RunFile
    backbone: Backbone
    model: "nn.Module"

    def predict(
        self, inputs: "str | Path | Sequence[Any]", batch_size: int = 32
    ) -> list[dict[str, Any]]:
        """Return for each input its `index`, `label` (the class's integer, or the score), `name` and
        `probabilities` by class name.

        `inputs` is a text, a list of texts, pairs or dicts with the task's columns, or a file of them.

        Raises:
            DataError: an input cannot be read.
        """
        task_part = self.file.task
        rows = task_part.module.read_inputs(task_part.config, inputs)
        problem = task_part.module.problem(task_part.config)
        task = self._bind(Data({"input": rows}, problem))
        predictions = evaluation.predict_split(self.model, task, "input", batch_size)
        return [self._answer(row) for row in predictions]

    def _answer(self, prediction: Mapping[str, Any]) -> dict[str, Any]:
        labels = self.file.task.module.problem(self.file.task.config).labels
        answer = {"index": prediction["index"], "label": prediction["prediction"]}
        if not labels:
            return answer
        probabilities = dict(zip(labels, prediction["probabilities"], strict=True))
        return answer | {"name": labels[prediction["prediction"]], "probabilities": probabilities}

    def evaluate(
        self, split: str = "test", batch_size: int = 32
    ) -> tuple[list[dict[str, Any]], dict[str, Score]]:
        """Return predictions and scores on a split of the run's task.

        Raises:
            DataError: the split has no examples, or the data have changed since the run.
        """
        part = self.file.task
        data = part.module.read(part.config, self.file.paths, self.file.seed)
        before = files.read_json(self.run.environment)["data"].get("fingerprint")
        if data.record.get("fingerprint") != before:
            raise DataError(
                f"the task's data have changed since {self.run.path} was trained "
                f"(fingerprint {data.record.get('fingerprint')}, was {before}). Put them back."
            )
        task = self._bind(data)
        if not task.size(split):
            known = ", ".join(name for name in data.splits if data.splits[name])
            raise DataError(f"the task has no split {split!r}. It has: {known}.")
        predictions = evaluation.predict_split(self.model, task, split, batch_size)
        scores = evaluation.score(
            predictions, task.metrics, lambda name: registry.find("metrics", name)
        )
        return predictions, scores

    def _bind(self, data: Data) -> Task:
        part = self.file.task
        bound: Task = part.module.bind(
            data, self.backbone, part.config, mix(self.file.seed, "task")
        )
        return bound
