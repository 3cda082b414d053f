"""A prediction for every example of a split, in batches that fit, and the file that keeps them."""

import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Prediction, Task, Writer, as_writer, parts_of
from graftlab.errors import DataError, OutOfMemory
from graftlab.rundir import files
from graftlab.terminal import Pace
from graftlab.training.parallel.share import Share

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)
ALL = Share()  # of one process alone

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


def predict(
    model: "nn.Module",
    task: Task,
    split: str,
    batch_size: int,
    *,
    device: "torch.device | str | None" = None,
    only: Sequence[int] | None = None,
    share: Share = ALL,
    writer: Writer | None = None,
    quiet: bool = True,
) -> list[Prediction]:
    """Return one prediction per example, in the order of the split.

    Batches hold examples of like length. `device` is the model's own unless given; `only` names the
    examples that are wanted; `share` is one process's: whole batches, the same as one process alone has.
    `writer` is the task where it is to write its texts. Unless `quiet`, what takes long is told.
    Where memory runs out this batch is halved, never that of the training.

    Raises:
        OutOfMemory: one example alone does not fit.
    """
    lengths = task.lengths(split)
    waiting = _batches(task, split, batch_size, only)[share.rank :: share.world]
    device = device if device is not None else _device(model)
    pace = _pace(split, waiting, quiet)
    found: dict[int, Prediction] = {}
    with _evaluating(model):
        while waiting:
            indices = waiting.pop(0)
            rows = _predict_batch(model, task, (split, indices), device, writer)
            if rows is not None:
                found |= rows
                pace.at(len(found))
                continue
            if len(indices) == 1:
                raise _no_room(f"example {indices[0]} of {split}", lengths[indices[0]], device)
            half = len(indices) // 2
            waiting = [piece for batch in [indices, *waiting] for piece in _cut(batch, half)]
            logger.warning("out of memory in evaluation: its batch is now %d examples", half)
    return [found[index] for index in sorted(found)]


def _no_room(which: str, length: int, device: "torch.device | str") -> OutOfMemory:
    return OutOfMemory(
        f"{which} (length {length}) does not fit into the memory of {device}, though it is alone. Use a "
        f"shorter task.max_length, a smaller backbone, or a device with more memory."
    )


def predict_in_lockstep(
    model: "nn.Module",
    task: Task,
    split: str,
    batch_size: int,
    *,
    device: "torch.device | str",
    only: Sequence[int] | None,
    share: Share,
    writer: Writer | None,
    before: Callable[[], None],
    quiet: bool = True,
) -> list[Prediction]:
    """Do as `predict`, in processes that exchange weights in forward passes: all make as many of them.

    One that has no batch left repeats the first. `before` is called before each.

    Raises:
        OutOfMemory: a batch does not fit: the others wait for the weights that it needs.
    """
    batches = _batches(task, split, batch_size, only)
    mine = batches[share.rank :: share.world]
    pace = _pace(split, mine, quiet)
    found: dict[int, Prediction] = {}
    with _evaluating(model):
        for number in range(-(-len(batches) // share.world)):
            before()
            indices = mine[number] if number < len(mine) else batches[0]
            rows = _predict_batch(model, task, (split, indices), device, writer)
            if rows is None:
                raise OutOfMemory(
                    f"{len(indices)} examples of {split} do not fit into the memory of {device}. Set "
                    f"training.micro_batch_size lower: evaluation takes as many at once."
                )
            found |= rows if number < len(mine) else {}
            pace.at(len(found))
    return [found[index] for index in sorted(found)]


def _pace(split: str, batches: Sequence[Sequence[int]], quiet: bool) -> Pace:
    return Pace(f"examples of {split}", sum(map(len, batches)), quiet=quiet, short=False)


def _batches(
    task: Task, split: str, batch_size: int, only: Sequence[int] | None
) -> list[list[int]]:
    """Return batches of examples of like length; of several tasks in one, each is of one task."""
    lengths, parts = task.lengths(split), parts_of(task, split)
    # The longest first: memory that will not do is found out at once. Ties keep the split's order.
    wanted = range(len(lengths)) if only is None else sorted(only)
    order = sorted(wanted, key=lambda index: -lengths[index])
    if parts is None:
        return _cut(order, batch_size)
    number = parts.__getitem__
    by_task = itertools.groupby(sorted(order, key=number), key=number)
    return [batch for _, mine in by_task for batch in _cut(list(mine), batch_size)]


def _cut(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _predict_batch(
    model: "nn.Module",
    task: Task,
    where: tuple[str, Sequence[int]],
    device: "torch.device | str",
    writer: Writer | None,
) -> dict[int, Prediction] | None:
    """Return predictions by index, or None where memory ran out."""
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    split, indices = where
    try:
        batch = {k: v.to(device) for k, v in task.batch(split, indices, None).items()}
        rows = task.predict(model, batch)
        if writer:
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


def writer_of(task: Task, split: str) -> Writer | None:
    """Return the task as one that writes texts for this split, if it is."""
    writer = as_writer(task)
    return writer if writer and writer.writes(split) else None


def write(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one JSON object a line, whole or not at all.

    Numbers have as many digits as they need to be read back equal; what is not finite is written
    as Python's `json` does, `NaN` or `Infinity`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    files.write_text(path, "".join(lines))


def read(path: Path) -> list[Prediction]:
    """Return what `write` wrote.

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
            if not isinstance(row, dict) or "prediction" not in row:
                raise DataError(f"{path}:{number}: no prediction. Evaluate the run again.")
            rows.append(row)
    return rows
