"""Metrics of a split's predictions, and what is best of them."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graftlab.contracts import Prediction, Score, Task, as_writer
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError
from graftlab.runfile.measures import measure
from graftlab.runs.prediction import writer_of

MEAN = "mean"
"""The metric of a mixture that is the mean of its tasks'."""
Inputs = Callable[[int], Mapping[str, object]]
"""Returns what the model was asked in an example of the split, as `Task.inputs` does."""


def metrics_at_end(task: Task, split: str) -> tuple[str, ...]:
    """Return the metrics of a split's predictions that were made with `complete`."""
    writer = writer_of(task, split)
    return (*task.metrics, *writer.final_metrics) if writer else task.metrics


def in_order(scores: Mapping[str, Any], config: object) -> dict[str, Any]:
    """Return scores in the order of the task's own list of metrics; of a mixture as they are."""
    listed = config.metrics if isinstance(config, DataSection) else ()
    return {name: scores[name] for name in (*(n for n in listed if n in scores), *scores)}


def metrics_at_evaluations(task: Task) -> tuple[str, ...]:
    """Return the metrics of every evaluation: those of written texts too where some are written there."""
    writer = as_writer(task)
    return (
        (*task.metrics, *writer.final_metrics) if writer and writer.at_evaluations else task.metrics
    )


def score(
    predictions: Sequence[Prediction],
    names: Sequence[str],
    inputs: Inputs | None = None,
) -> dict[str, Score]:
    """Return each metric's score by name; `inputs` are needed where one of them reads inputs.

    `TASK/METRIC` scores the examples of one task of a mixture, and `TASK/loss` is their mean loss; `mean` is
    that of each task's first metric.

    Raises:
        DataError: an example has no label.
    """
    found = {name: _score(predictions, name, inputs) for name in names if name != MEAN}
    if MEAN in names:
        found[MEAN] = _mean(found)
    return {name: found[name] for name in names}


def _score(predictions: Sequence[Prediction], name: str, inputs: Inputs | None) -> Score:
    task, slash, metric = name.rpartition("/")
    rows = [row for row in predictions if row["task"] == task] if slash else predictions
    if metric == "loss":
        loss = mean_loss(rows)
        return Score(loss, None, None if loss is not None else "no example has a label")
    found = measure(metric)
    written = slash and found.module.READS in ("texts", "programs")
    if written and all(row["prediction"] is None for row in rows):
        return Score(None, None, "this task has written no texts")
    return found.score(_Asked(rows, inputs) if found.module.READS_INPUTS else rows)


def each(
    predictions: Sequence[Prediction], name: str, inputs: Inputs | None = None
) -> list[float | None] | None:
    """Return the value of each prediction; None of a metric that is no mean or median of such.

    Raises:
        DataError: an example has no label.
    """
    found = measure(name)
    rows = _Asked(predictions, inputs) if found.module.READS_INPUTS else predictions
    return found.each(rows)


class _Asked(Sequence[Prediction]):
    """Predictions of which each has its `inputs` beside it while it is looked at: they are kept once."""

    def __init__(self, predictions: Sequence[Prediction], inputs: Inputs | None) -> None:
        assert inputs is not None, "a metric reads inputs, and none are at hand"
        self._predictions, self._inputs = predictions, inputs

    def __len__(self) -> int:
        return len(self._predictions)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return _Asked(self._predictions[place], self._inputs)
        row = self._predictions[place]
        return {**row, "inputs": self._inputs(row["index"])}


def _firsts(names: Iterable[str]) -> list[str]:
    """Return the first metric of each task of a mixture."""
    firsts: dict[str, str] = {}
    for name in names:
        task, slash, _ = name.rpartition("/")
        if slash:
            firsts.setdefault(task, name)
    return list(firsts.values())


def _mean(scores: Mapping[str, Score]) -> Score:
    firsts = _firsts(scores)
    if is_undecided(MEAN, firsts):
        return Score(None, None, "of one task more is better, of another less")
    values = [scores[name].value for name in firsts]
    errors = [scores[name].standard_error for name in firsts]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Score(None, None, "a task's metric is not defined")
    sure = [error for error in errors if error is not None]
    # the tasks' examples are drawn independently: their variances add up
    error = math.hypot(*sure) / len(sure) if len(sure) == len(values) else None
    reason = None if error is not None else "a task's metric has no standard error"
    return Score(math.fsum(known) / len(known), error, reason)


def is_undecided(name: str, names: Sequence[str]) -> bool:
    """Return whether it is the mean of metrics of which some are better high and some low."""
    return name == MEAN and len({higher_is_better(first, names) for first in _firsts(names)}) > 1


def higher_is_better(name: str, names: Sequence[str]) -> bool:
    """Return whether more of a metric, one of a task's `names`, is better.

    Raises:
        ConfigError: it is the mean of metrics of which some are better high and some low.
    """
    if name == MEAN:
        firsts = _firsts(names)
        ways = {first: higher_is_better(first, names) for first in firsts}
        if len(set(ways.values())) > 1:
            said = ", ".join(f"{first} ({'high' if up else 'low'})" for first, up in ways.items())
            raise ConfigError(
                f"training.best_by: the mean of the tasks' first metrics says nothing, for some are better "
                f"high and some low: {said}. Name one of them, or loss; or change the tasks' metrics."
            )
        return next(iter(ways.values()), True)
    metric = name.rpartition("/")[2]
    return metric != "loss" and measure(metric).module.HIGHER_IS_BETTER


def rehearse(task: Task, data: Mapping[str, Sequence[Prediction]]) -> None:
    """Score empty texts, so that labels which a metric cannot read are found before the training.

    `data` are the rows of each split. Metrics of the tasks of a mixture are not tried.

    Raises:
        DataError: a metric of written texts cannot read the labels.
    """
    for split, rows in data.items():
        writer = as_writer(task)
        asked = split == "validation" and writer is not None and len(writer.at_evaluations) > 0
        if writer and rows and split != "train" and (writer.writes(split) or asked):
            for name in (name for name in writer.final_metrics if "/" not in name and name != MEAN):
                empty = [
                    {"index": place, "label": row["label"], "prediction": ""}
                    for place, row in enumerate(rows)
                ]
                score(empty, [name], functools.partial(task.inputs, split))


def explained(
    predictions: Sequence[Prediction],
    names: Sequence[str],
    inputs: Inputs | None = None,
) -> list[Prediction]:
    """Return the predictions with `explained`: by metric, how it came to score what was written."""
    metrics = [(name, *name.rpartition("/")) for name in names if name != MEAN]
    known = [(name, task, measure(metric)) for name, task, _, metric in metrics if metric != "loss"]
    rows = []
    for row in predictions:
        said = {
            name: measure.explain(row)
            for name, task, measure in known
            if measure.explains and row["prediction"] is not None and task in ("", row.get("task"))
        }
        rows.append({**row, "explained": said} if said else row)
    return rows


def mean_loss(predictions: Sequence[Prediction]) -> float | None:
    """Return the mean loss over the examples (or their `count`s) with a label; None where none has."""
    known = [row for row in predictions if row["loss"] is not None]
    count = sum(row.get("count", 1) for row in known)
    return math.fsum(row["loss"] for row in known) / count if count else None
