"""A prediction for every example of a split, the file that keeps them, and metrics made of them."""

import contextlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from graftlab.contracts import Task, Writer, parts_of
from graftlab.errors import ConfigError, DataError, OutOfMemory
from graftlab.metrics import Score
from graftlab.rundir import files
from graftlab.training.parallel.launch import Share

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

logger = logging.getLogger(__name__)
ALL = Share()  # of one process alone
MEAN = "mean"
"""The metric of a mixture that is the mean of its tasks'."""

Prediction = dict[str, Any]
"""`index` (place in the split), and what `contracts.Task.predict` returns."""


@contextlib.contextmanager
def _evaluating(model: "nn.Module") -> Iterator[None]:
    """All modules in eval mode, then back in its own; torch's generators stay as they were."""
    import torch

    training = {module: module.training for module in model.modules()}
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        # Not inference_mode: what a model caches there (rotary tables) could never be trained with.
        with torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            yield
    finally:
        model.train(
            training[model]
        )  # modules that drop caches when training goes on do it in train()
        for module, was_training in training.items():
            module.training = was_training


def predict_split(
    model: "nn.Module",
    task: Task,
    split: str,
    batch_size: int,
    *,
    device: "torch.device | str | None" = None,
    num_rows: int | None = None,
    share: Share = ALL,
    complete: bool = False,
) -> list[Prediction]:
    """Return one prediction per example, in the order of the split.

    Batches hold examples of like length. `device` is the model's own unless given; `num_rows` takes
    only the first rows; `share` is one process's: whole batches, the same as one process alone has.
    `complete` has a task that writes texts write them.
    Where memory runs out this batch is halved, never that of the training.

    Raises:
        OutOfMemory: one example alone does not fit.
    """
    lengths = task.lengths(split)[:num_rows]
    waiting = _batches(lengths, batch_size, parts_of(task, split))[share.rank :: share.world]
    device = device if device is not None else _device(model)
    found: dict[int, Prediction] = {}
    with _evaluating(model):
        while waiting:
            indices = waiting.pop(0)
            rows = _predict(model, task, (split, indices), device, complete)
            if rows is not None:
                found |= rows
                continue
            if len(indices) == 1:
                raise OutOfMemory(
                    f"example {indices[0]} of {split} (length {lengths[indices[0]]}) does not fit "
                    f"into the memory of {device}, though it is alone. Use a shorter "
                    f"task.max_length, a smaller backbone, or a device with more memory."
                )
            half = len(indices) // 2
            waiting = [piece for batch in [indices, *waiting] for piece in _cut(batch, half)]
            logger.warning("out of memory in evaluation: its batch is now %d examples", half)
    return [found[index] for index in sorted(found)]


def predict_in_step(
    model: "nn.Module",
    task: Task,
    split: str,
    batch_size: int,
    *,
    device: "torch.device | str",
    share: Share,
    complete: bool,
    before: Callable[[], None],
) -> list[Prediction]:
    """Do as `predict_split`, in processes that exchange weights in forward passes: all make as many of them.

    One that has no batch left repeats the first. `before` is called before each.

    Raises:
        OutOfMemory: a batch does not fit: the others wait for the weights that it needs.
    """
    batches = _batches(task.lengths(split), batch_size, parts_of(task, split))
    mine = batches[share.rank :: share.world]
    found: dict[int, Prediction] = {}
    with _evaluating(model):
        for number in range(-(-len(batches) // share.world)):
            before()
            indices = mine[number] if number < len(mine) else batches[0]
            rows = _predict(model, task, (split, indices), device, complete)
            if rows is None:
                raise OutOfMemory(
                    f"{len(indices)} examples of {split} do not fit into the memory of {device}. Set "
                    f"training.micro_batch_size lower: evaluation takes as many at once."
                )
            found |= rows if number < len(mine) else {}
    return [found[index] for index in sorted(found)]


def _batches(
    lengths: Sequence[int], batch_size: int, parts: "NDArray[np.int64] | None"
) -> list[list[int]]:
    """Return batches of examples of like length; of several tasks in one, each is of one task."""
    # The longest first: memory that will not do is found out at once. Ties keep the split's order.
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    if parts is None:
        return _cut(order, batch_size)
    number = parts.__getitem__
    by_task = itertools.groupby(sorted(order, key=number), key=number)
    return [batch for _, mine in by_task for batch in _cut(list(mine), batch_size)]


def _cut(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _predict(
    model: "nn.Module",
    task: Task,
    where: tuple[str, Sequence[int]],
    device: "torch.device | str",
    complete: bool,
) -> dict[int, Prediction] | None:
    """Return predictions by index, or None where memory ran out."""
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    split, indices = where
    try:
        batch = {k: v.to(device) for k, v in task.batch(split, indices, None).items()}
        rows = task.predict(model, batch)
        if complete and (writer := _writer(task, split)):
            written = writer.complete(model, split, indices)
            rows = [row | more for row, more in zip(rows, written, strict=True)]
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        rows = None
    if rows is None:  # outside of the handler, where the traceback no longer holds the tensors
        clear_device_cache(garbage_collection=True)
        return None
    assert len(rows) == len(indices), (split, len(rows), len(indices))
    return {index: {"index": index, **row} for index, row in zip(indices, rows, strict=True)}


def _device(model: "nn.Module") -> "torch.device | str":
    return next((parameter.device for parameter in model.parameters()), "cpu")


def metrics_at_end(task: Task, split: str) -> tuple[str, ...]:
    """Return the metrics of a split's predictions that were made with `complete`."""
    writer = _writer(task, split)
    return (*task.metrics, *writer.final_metrics) if writer else task.metrics


def _writer(task: Task, split: str) -> Writer | None:
    """Return the task as one that writes texts for this split, if it is."""
    writer = cast("Writer", task)
    return writer if hasattr(task, "complete") and writer.writes(split) else None


def score(
    predictions: Sequence[Prediction],
    names: Sequence[str],
    find: Callable[[str], ModuleType],
) -> dict[str, Score]:
    """Return each metric's score by name; `find` returns the module behind a metric's name.

    `TASK/METRIC` scores the examples of one task of a mixture, and `TASK/loss` is their mean loss; `mean` is
    that of each task's first metric.

    Raises:
        DataError: an example has no label.
    """
    found = {name: _score(predictions, name, find) for name in names if name != MEAN}
    if MEAN in names:
        found[MEAN] = _mean(found, find)
    return {name: found[name] for name in names}


def _score(
    predictions: Sequence[Prediction], name: str, find: Callable[[str], ModuleType]
) -> Score:
    task, slash, metric = name.rpartition("/")
    rows = [row for row in predictions if row["task"] == task] if slash else predictions
    if metric == "loss":
        loss = mean_loss(rows)
        return Score(loss, None, None if loss is not None else "no example has a label")
    module = find(metric)
    written = slash and getattr(module, "READS", "classes") in ("texts", "programs")
    if written and all(row["prediction"] is None for row in rows):
        return Score(None, None, "this task has written no texts")
    found: Score = module.score(rows)
    return found


def _firsts(names: Iterable[str]) -> list[str]:
    """Return the first metric of each task of a mixture."""
    firsts: dict[str, str] = {}
    for name in names:
        task, slash, _ = name.rpartition("/")
        if slash:
            firsts.setdefault(task, name)
    return list(firsts.values())


def _mean(scores: Mapping[str, Score], find: Callable[[str], ModuleType]) -> Score:
    firsts = _firsts(scores)
    if len({higher_is_better(name, firsts, find) for name in firsts}) > 1:
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


def higher_is_better(name: str, names: Sequence[str], find: Callable[[str], ModuleType]) -> bool:
    """Return whether more of a metric, one of a task's `names`, is better.

    Raises:
        ConfigError: it is the mean of metrics of which some are better high and some low.
    """
    if name == MEAN:
        firsts = _firsts(names)
        ways = {first: higher_is_better(first, names, find) for first in firsts}
        if len(set(ways.values())) > 1:
            said = ", ".join(f"{first} ({'high' if up else 'low'})" for first, up in ways.items())
            raise ConfigError(
                f"training.best_by: the mean of the tasks' first metrics says nothing, for some are better "
                f"high and some low: {said}. Name one of them, or loss; or change the tasks' metrics."
            )
        return next(iter(ways.values()), True)
    metric = name.rpartition("/")[2]
    return metric != "loss" and bool(find(metric).HIGHER_IS_BETTER)


def rehearse(
    task: Task, data: Mapping[str, Sequence[Mapping[str, Any]]], find: Callable[[str], ModuleType]
) -> None:
    """Score empty texts, so that labels which a metric cannot read are found before the training.

    `data` are the rows of each split. Metrics of the tasks of a mixture are not tried.

    Raises:
        DataError: a metric of written texts cannot read the labels.
    """
    for split, rows in data.items():
        writer = _writer(task, split)
        if writer and rows and split != "train":
            for name in (name for name in writer.final_metrics if "/" not in name and name != MEAN):
                empty = [
                    {"index": place, "label": row["label"], "prediction": ""}
                    for place, row in enumerate(rows)
                ]
                find(name).score(empty)


def explained(
    predictions: Sequence[Prediction],
    names: Sequence[str],
    find: Callable[[str], ModuleType],
) -> list[Prediction]:
    """Return the predictions with `explained`: by metric, how it came to score what was written."""
    metrics = [(name, *name.rpartition("/")) for name in names if name != "mean"]
    known = [(name, task, find(metric)) for name, task, _, metric in metrics if metric != "loss"]
    rows = []
    for row in predictions:
        said = {
            name: module.explain(row)
            for name, task, module in known
            if hasattr(module, "explain")
            and row["prediction"] is not None
            and task in ("", row.get("task"))
        }
        rows.append({**row, "explained": said} if said else row)
    return rows


def mean_loss(predictions: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean loss over the examples (or their `count`s) with a label; None where none has."""
    known = [row for row in predictions if row["loss"] is not None]
    count = sum(row.get("count", 1) for row in known)
    return math.fsum(row["loss"] for row in known) / count if count else None


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one JSON object a line, whole or not at all.

    Numbers have as many digits as they need to be read back equal; what is not finite is written
    as Python's `json` does, `NaN` or `Infinity`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    files.write_text(path, "".join(lines))


def read_predictions(path: Path) -> list[Prediction]:
    """Return what `write_predictions` wrote.

    Raises:
        DataError: there is no such file, or a line of it is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"no predictions at {path}. `graftlab evaluate RUN` writes them.")
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path}:{number}: not JSON ({error}). Evaluate the run again."
                ) from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: not a JSON object. Evaluate the run again.")
            rows.append(row)
    return rows
