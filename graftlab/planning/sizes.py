"""What a run's data come to: how many examples, how long, and the longest of them as a batch.

Rows are read where that needs no download. Of many, only some become tokens: the longest by characters,
which the peak depends on, and a sample, which the number of tokens is estimated from.
"""

import contextlib
import dataclasses
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from graftlab.contracts import Backbone, Batch, Data, Note, Row, Task
from graftlab.data import sources
from graftlab.data.rows import Rows
from graftlab.errors import DataError
from graftlab.runs import material

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.runfile import RunFile

ALL = 4000  # rows of a split that all become tokens: about a second
LONGEST, SAMPLED = (
    256,
    1500,
)  # of more rows: so many of the longest by characters, and so many drawn
TOKENS = ("input_ids", "attention_mask", "token_type_ids", "labels", "position_ids")
PLACES = "vector_mask"
"""Says which tokens are no tokens: these are as many at any length."""


class Evaluated(TypedDict, total=False):
    """Examples of the splits that have some, beside train."""

    validation: int
    test: int


class Sizes(NamedTuple):
    """What is known of the data."""

    examples: int | None
    """In train; None where they cannot be read without a download."""
    longest: int
    """Tokens of the longest training example, as it goes through the model (1 for images)."""
    mean: float | None
    """Tokens of a training example."""
    sampled: bool
    """Whether `mean` comes from a sample."""
    truncated: int
    """Training examples that are cut, of those that have become tokens."""
    lengths: Sequence[int]
    """Of the training examples that have become tokens."""
    evaluated: Evaluated
    notes: tuple[Note, ...] = ()


class Bound(NamedTuple):
    """A task for the rehearsal."""

    task: Task
    sizes: Sizes


def read(file: "RunFile") -> "Data | str":
    """Return the data of a run, or why they cannot be read without a download.

    Raises:
        GraftlabError: what is on this machine is wrong.
    """
    config = file.task.config
    try:
        with _offline():
            return material.read(file)
    except DataError as error:
        if not _from_hub(config):
            raise
        return str(error)


def _from_hub(config: Any) -> bool:
    parts = getattr(config, "parts", None)
    if parts:
        return any(_from_hub(getattr(part, "config", part)) for part in dict(parts).values())
    return bool(getattr(config, "hub", None)) and not sources.local_files(config)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` and the hub's client look into their caches only."""
    import huggingface_hub.constants

    name = "HF_HUB_OFFLINE"
    said = os.environ.get(name)
    os.environ[name] = "1"  # for a `datasets` that is imported inside
    known = [huggingface_hub.constants, sys.modules.get("datasets.config")]
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    for module in known:
        if module:
            setattr(module, name, True)
    try:
        yield
    finally:
        for module in (huggingface_hub.constants, sys.modules.get("datasets.config")):
            if module:
                setattr(module, name, before)
        os.environ.pop(name)
        if said is not None:
            os.environ[name] = said


def bind(file: "RunFile", data: "Data | str", backbone: Backbone, longest: int | None) -> Bound:
    """Return the task over what has to become tokens, and the sizes of all.

    `longest` is a length to assume; where the data cannot be read and it is None, the longest that the
    task allows.
    """
    if isinstance(data, str):
        return _unknown(file, data, backbone, longest)
    config = file.task.config
    examples = len(data.splits["train"])
    chosen = {split: _chosen(rows) for split, rows in data.splits.items()}
    sampled = len(chosen["train"]) < examples
    if sampled and hasattr(config, "max_left_out"):
        config = config.model_copy(update={"max_left_out": 1.0})  # of all, but here are the longest
    task = material.bind(file, dataclasses.replace(data, splits=chosen), backbone, config)
    lengths = [int(length) for length in task.lengths("train")]
    if not sampled:
        examples = task.size("train")  # without those that the task leaves out
    left_out = len(chosen["train"]) - len(lengths)
    drawn = lengths[max(0, LONGEST - left_out) :] if sampled else lengths
    top = max(lengths)
    sizes = Sizes(
        examples=examples,
        longest=top,
        mean=None if backbone.max_length is None else sum(drawn) / len(drawn),
        sampled=sampled,
        truncated=_truncated(task),
        lengths=drawn,
        evaluated=_evaluated(data),
    )
    if longest is None or backbone.max_length is None:
        return Bound(task, sizes)
    return Bound(stretched(task, longest), sizes._replace(longest=longest))


def _evaluated(data: Data) -> Evaluated:
    found: Evaluated = {}
    if rows := data.splits.get("validation"):
        found["validation"] = len(rows)
    if rows := data.splits.get("test"):
        found["test"] = len(rows)
    return found


def _truncated(task: Task) -> int:
    cut = task.record.get("truncated", {})
    found = cut.get("train", 0) if isinstance(cut, Mapping) else 0
    return found if isinstance(found, int) else 0


def _chosen(rows: Sequence[Row]) -> Sequence[Row]:
    """Return all rows if they are few, else the longest and a sample behind them."""
    if len(rows) <= ALL or not isinstance(rows, Rows):
        return rows
    order = sorted(range(len(rows)), key=lambda index: -_characters(rows[index]))
    rest = order[LONGEST:]
    # the sample is of all rows: whoever is among the longest as well stands there twice
    drawn = random.Random(0).sample(range(len(rows)), min(SAMPLED, len(rest)))
    return rows.take([*order[:LONGEST], *drawn])


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0


def _unknown(file: "RunFile", why: str, backbone: Backbone, longest: int | None) -> Bound:
    """Return the task over made-up rows of the same form, as long as they may be."""
    module, problem = file.task.module, file.task.module.problem(file.task.config)
    with tempfile.TemporaryDirectory() as folder:
        config = module.example(Path(folder))
        data = dataclasses.replace(module.read(config, file.paths, 0), problem=problem)
        if backbone.max_length is not None:
            config = config.model_copy(update={"max_length": file.task.config.max_length})
        task = material.bind(file, data, backbone, config)
    notes = (Note.of("data_unread", reason=why),)
    sizes = Sizes(None, 1, None, False, 0, (), Evaluated(), notes)
    if backbone.max_length is None:
        return Bound(task, sizes)
    length = longest or int(task.record.get("max_length") or backbone.max_length)
    return Bound(stretched(task, length), sizes._replace(longest=length))


def stretched(task: Task, length: int) -> Task:
    """Return the task with batches whose every example has `length` tokens."""
    return _Stretched(task, length)


class _Stretched:
    def __init__(self, task: Task, length: int) -> None:
        self._task, self._length = task, length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def lengths(self, split: str) -> Sequence[int]:
        return [self._length] * len(self._task.lengths(split))

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        batch = self._task.batch(split, indices, epoch)
        width = batch["input_ids"].shape[-1]
        longer = {
            name: _repeated(tensor, self._length)
            if name in TOKENS and tensor.shape[-1] == width and tensor.dim() > 1
            else tensor
            for name, tensor in batch.items()
        }
        if PLACES in batch:
            longer[PLACES] = _first(batch[PLACES], self._length)
        return longer


def _first(marked: Any, length: int) -> Any:
    """Return marks (N, L) as (N, length), as many in each row as there are, in front."""
    import torch

    return (torch.arange(length) < marked.sum(1, keepdim=True)).to(marked.dtype)


def _repeated(tensor: "Tensor", length: int) -> "Tensor":
    """Return a tensor (..., L) as (..., length), its columns again and again: padding among them, if any."""
    import torch

    columns = torch.arange(length) % tensor.shape[-1]
    return tensor[..., columns]
