"""A finished run asked otherwise than it was trained to be, on the same rows: does it read its vectors?

Each way's predictions are kept in the run as soon as they are made. Killed, the same call goes on with the
next.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graftlab.contracts import Controls, Data, Prediction, Task, TaskKind
from graftlab.contracts.plot import ControlRow
from graftlab.data.splits import no_split
from graftlab.errors import Argument, ConfigError, Place
from graftlab.inference.adapted import Adapted
from graftlab.rundir import files, spreadsheet
from graftlab.runfile import Part, RunFile
from graftlab.runs import beside_controls, evaluation, material, prediction
from graftlab.seeds import mix

MADE = "made_of.json"
"""What the predictions that are there were made of."""


@dataclass(frozen=True)
class Beside:
    """What was found, and where it is."""

    split: str
    rows: Sequence[ControlRow]
    folder: Path
    again: tuple[str, ...]
    """Controls whose predictions were there already."""

    def as_json(self) -> dict[str, object]:
        return {"split": self.split, "interval": beside_controls.INTERVAL, "rows": list(self.rows)}

    def as_csv(self) -> str:
        return spreadsheet.text(self.rows, ControlRow.__annotations__)


def compare(
    adapted: Adapted, split: str = "test", batch_size: int | None = None, other: Part | None = None
) -> Beside:
    """Return the scores of a run beside those of its controls, on a split of its task or of `other`.

    They are written into the run's `evaluation/`: `controls.json`, `controls.csv`, and the predictions of
    each control.

    Raises:
        ConfigError: the task has no controls, or the split is the one that was trained on.
        DataError: the split has no examples, or the data are gone or have changed since the run.
        ModelError: a metric's model is not there.
    """
    file = replace(adapted.file, task=other) if other else adapted.file
    _check(file, split)
    data = material.read(file) if other else material.read_again(file, adapted.run)
    if not len(data.splits.get(split, ())):
        raise no_split(split, [name for name in data.splits if data.splits[name]])
    asked = _asked(adapted, file, data, split)
    tasks = {name: task for name, task in asked.tasks.items() if not isinstance(task, str)}
    first = next(iter(tasks.values()))
    evaluation.rehearse(first, {split: data.splits[split]})  # before anything is written
    named = f"{other.config.name or other.name}-{split}" if other else split
    folder = adapted.run.path / "evaluation" / adapted.named(f"controls-{named}")
    size = batch_size or adapted.batch_size
    kept = _Kept(folder, _made_of(adapted, file, data, size), asked.made_of)
    found = {
        name: kept.of(name) or kept.put(name, _predicted(adapted, task, split, size))
        for name, task in tasks.items()
    }
    metrics, inputs = (
        evaluation.metrics_at_end(first, split),
        functools.partial(first.inputs, split),
    )
    result = Beside(
        split, beside_controls.rows(found, asked, metrics, inputs), folder, tuple(kept.there)
    )
    files.write_json(folder / "controls.json", result.as_json())
    files.write_text(folder / "controls.csv", result.as_csv())
    return result


def _check(file: RunFile, split: str) -> None:
    if file.task.module.controls is None:
        said = f"a task of kind {file.task.name} has none: they are for rows that stand for vectors (elm)."
        raise ConfigError(said, place=Place(argument=Argument("controls")), kind="conflict")
    if split == "train":
        said = "what was trained on says nothing of what is read: give validation or test."
        raise ConfigError(said, place=Place(argument=Argument("split", split)), kind="not_allowed")


def _asked(adapted: Adapted, file: RunFile, data: Data, split: str) -> Controls:
    module: TaskKind = file.task.module
    assert module.controls is not None
    seed = mix(file.seed, "controls")
    return module.controls(data, split, adapted.backbone, file.task.config, seed)


def _predicted(adapted: Adapted, task: Task, split: str, size: int) -> list[Prediction]:
    with adapted.precision():
        writer = prediction.writer_of(task, split)
        return prediction.predict(
            adapted.model, task, split, size, writer=writer, quiet=adapted.quiet
        )


class _Kept:
    """Predictions by control, kept as long as all that they are made of stays the same."""

    def __init__(self, folder: Path, made_of: Mapping[str, object], own: Mapping[str, str]) -> None:
        """`made_of` is what all predictions are made of, `own` a hash of more by a control's name."""
        self._folder, self.there = folder, list[str]()
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        path = folder / MADE
        now = json.loads(json.dumps({**made_of, "own": dict(own)}, default=str))
        before = files.read_json(path) if path.is_file() else {}
        known = before.get("own", {})
        same = {**before, "own": 0} == {**now, "own": 0}
        for old in (folder / "predictions").glob("*.jsonl"):
            if not same or known.get(old.stem) != own.get(old.stem):
                old.unlink()
        if before != now:
            files.write_json(path, now)

    def of(self, name: str) -> list[Prediction] | None:
        """Return a control's predictions, where they are there."""
        if not self._path(name).is_file():
            return None
        self.there.append(name)
        return prediction.read(self._path(name))

    def put(self, name: str, rows: list[Prediction]) -> list[Prediction]:
        """Keep a control's predictions, and return them."""
        prediction.write(self._path(name), rows)
        return rows

    def _path(self, name: str) -> Path:
        return self._folder / "predictions" / f"{name}.jsonl"


def _made_of(adapted: Adapted, file: RunFile, data: Data, size: int) -> dict[str, object]:
    """Return all that predictions depend on: the adapter, the rows, how they are asked, and the batch."""
    weights = (
        sorted(adapted.run.adapter_folder.rglob("*.safetensors")) if adapted.step is None else []
    )
    return {
        "adapter": {path.name: files.sha256(path) for path in weights},
        "step": adapted.step,
        "task": file.task.config.model_dump(mode="json", exclude={"metrics"}),
        "rows": data.record.get("fingerprint"),
        "seed": file.seed,
        "batch_size": size,
        "device": str(next(adapted.model.parameters()).device.type),
    }
