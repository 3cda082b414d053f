"""A finished run scored again; its predictions are kept, or compared with those that are there."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from graftlab import programs
from graftlab.contracts import OF_VECTORS, Data, Prediction, Score, Task
from graftlab.data import splits
from graftlab.inference.adapted import Adapted
from graftlab.rundir.records import ClassReport
from graftlab.runfile import Part
from graftlab.runs import class_report, evaluation, prediction

COMPUTED = ("loss", "count", "correct")


class Difference(NamedTuple):
    """How predictions differ from those that a run has written."""

    rows: int
    """How many have another prediction, or have `passed` their tests otherwise."""
    largest: float
    """By how much a number differs at most: a loss, a count of tokens, a probability, a score."""


class Mistake(NamedTuple):
    """An example that was predicted badly."""

    example: int
    """Its place in the split, from 1."""
    file: str
    """Where the rows of the split are from: a file, or a data set and its split."""
    row: int
    """Which row of it the example was made of, from 1."""
    label: object
    """By name, where there are classes."""
    prediction: object
    probability: float | None
    """Of the prediction."""
    loss: float
    inputs: Mapping[str, object]
    """What the model was asked."""


@dataclass(frozen=True)
class Scored:
    """What a model has reached on a split."""

    split: str
    scores: Mapping[str, Score]
    loss: float | None
    predictions: Sequence[Prediction]
    path: Path
    """Where the predictions are."""
    difference: Difference | None
    """From those that were there before; None where none were."""
    classes: Sequence[ClassReport]
    """What there is to say by class, where there are any."""
    worst: Sequence[Mistake]
    """The wrongest of the predictions, as many as were asked for."""

    def as_json(self) -> dict[str, object]:
        return {
            "split": self.split,
            "metrics": {name: score.as_json() for name, score in self.scores.items()},
            "loss": self.loss,
            "predictions": str(self.path),
            "difference": None if self.difference is None else self.difference._asdict(),
            "classes": list(self.classes),
            "worst": [mistake._asdict() for mistake in self.worst],
        }


def score(
    adapted: Adapted,
    split: str = "test",
    batch_size: int | None = None,
    other: Part | None = None,
    *,
    execute_code: bool = False,
    errors: int = 0,
) -> Scored:
    """Return a run's scores on a split of its task, or of `other`; the predictions are kept in the run.

    With `execute_code` the programs that the model writes are run, in a sandbox; `errors` is how many of
    the worst predictions are shown.

    Raises:
        ConfigError: the other task wants something else of the model.
        DataError: the split has no examples, or the data are gone or have changed since the run.
        CheckpointError: the predictions that are there are damaged.
    """
    named = f"{other.config.name or other.name}-{split}" if other else split
    path = adapted.run.predictions(adapted.named(named))
    adapted.run.check_if_listed(path)
    task, data, rows = adapted.predictions(split, batch_size, other)
    rows = programs.run(rows) if execute_code else rows
    names, inputs = evaluation.metrics_at_end(task, split), functools.partial(task.inputs, split)
    scores = evaluation.score(rows, names, inputs)
    rows = evaluation.explained(rows, names, inputs)
    path, difference = keep(path, rows)
    if difference is None:
        adapted.run.cover(path)
    loss = evaluation.mean_loss(rows)
    classes = class_report.reports(rows, task.problem)
    found = [_mistake(row, task, data, split) for row in worst(rows, errors)]
    return Scored(split, scores, loss, rows, path, difference, classes, found)


def worst(rows: Sequence[Prediction], number: int) -> list[Prediction]:
    """Return the predictions of the highest loss; of classes and choices those that are wrong."""
    wrong = [
        row
        for row in rows
        if row["loss"] is not None
        and not ("probabilities" in row and row["prediction"] == row["label"])
    ]
    wrong.sort(key=lambda row: -row["loss"] / row.get("count", 1))
    return wrong[:number]


def _mistake(row: Prediction, task: Task, data: Data, split: str) -> Mistake:
    names = task.problem.of(row).labels

    def named(value: object) -> object:
        return names[value] if names and isinstance(value, int) else value

    own = data.record["tasks"][row["task"]] if task.problem.parts else data.record
    asked = task.inputs(split, row["index"])
    return Mistake(
        row["index"] + 1,
        own["source"][splits.origins(own)[split]],
        task.source_row(split, row["index"]) + 1,
        named(row["label"]),
        named(row["prediction"]),
        max(row["probabilities"]) if "probabilities" in row else None,
        row["loss"] / row.get("count", 1),
        {name: value for name, value in asked.items() if name not in OF_VECTORS},
    )


def keep(path: Path, rows: Sequence[Prediction]) -> tuple[Path, Difference | None]:
    """Write predictions where none are; else compare with those that are there, which stay.

    Returns where they are, and how they differ from what was there (None where nothing was).
    """
    if not path.exists():
        prediction.write(path, rows)
        return path, None
    difference = differ(prediction.read(path), rows)
    if any(difference):
        path = path.with_name(f"{path.stem}.again.jsonl")
        prediction.write(path, rows)
    return path, difference


def differ(before: Sequence[Prediction], now: Sequence[Prediction]) -> Difference:
    """Return how two files of predictions differ."""
    pairs = list(zip(before, now, strict=False))
    changed = sum(
        not _alike(a["prediction"], b["prediction"]) or a.get("passed") != b.get("passed")
        for a, b in pairs
    )
    gaps = [
        _gap(x, y) for a, b in pairs for x, y in itertools.zip_longest(_numbers(a), _numbers(b))
    ]
    return Difference(changed + abs(len(before) - len(now)), max(gaps, default=0.0))


def _numbers(row: Prediction) -> list[float | None]:
    """Return all that was computed of an example: None where it has no such number."""
    own = [row["prediction"]] if isinstance(row["prediction"], float) else []
    return [*(row.get(name) for name in COMPUTED), *row.get("probabilities", ()), *own]


def _gap(x: float | None, y: float | None) -> float:
    """Return by how much two numbers differ: infinitely where one of them is none."""
    if _alike(x, y):
        return 0.0
    gap = math.inf if x is None or y is None else abs(x - y)
    return gap if gap == gap else math.inf


def _alike(x: object, y: object) -> bool:
    return x == y or (x != x and y != y)  # NaN is the only value unlike itself
