"""Several tasks bound to one backbone: each computes its own batches, loss and predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.contracts import OF_TASK, Batch, Problem, Task, as_writer
from graftlab.tasks._outputs import UNKNOWN
from graftlab.tasks.mixture.draws import epoch_draws
from graftlab.tasks.mixture.rows import Places

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

# Shapes: N examples of a batch, L tokens of the longest, C rows of the head.


class Own:
    """A model whose logits are those of one task alone: what it puts out for others is not there."""

    def __init__(self, model: "nn.Module", rows: slice) -> None:
        self._model, self._rows = model, rows

    def __call__(self, **inputs: object) -> Any:
        output = self._model(**inputs)
        output.logits = output.logits[..., self._rows]
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@dataclass(frozen=True, eq=False)
class MixtureTask:
    """Tasks that train together.

    A batch of one task is that task's own with the key `task/NAME`, which says whose rows they are. One of
    several tasks is padded to the longest; its loss and predictions are made task by task all the same.
    """

    problem: Problem
    tasks: Mapping[str, Task]
    heads: Mapping[str, slice]
    """Rows of the head by task; empty where tokens are put out."""
    places: Mapping[str, Places]
    """By split."""
    quotas: Sequence[int]
    """Draws of an epoch, by task."""
    pad: int
    """The padding token."""
    record: Mapping[str, object] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tasks)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Their mean, then each task's own; the first of each makes the mean."""
        own = [f"{n}/{m}" for n, task in self.tasks.items() for m in (*task.metrics, "loss")]
        return (*(["mean"] if all(t.metrics for t in self.tasks.values()) else []), *own)

    @property
    def final_metrics(self) -> tuple[str, ...]:
        writers = {name: as_writer(task) for name, task in self.tasks.items()}
        return tuple(
            f"{name}/{metric}"
            for name, writer in writers.items()
            for metric in (writer.final_metrics if writer else ())
        )

    def size(self, split: str) -> int:
        return len(self.places[split].parts) if split in self.places else 0

    def parts(self, split: str) -> "NDArray[np.int64]":
        """Return of each example the number of its task."""
        return self.places[split].parts

    def draws(self, seed: int, epoch: int) -> "NDArray[np.int64]":
        """Return the train examples of an epoch, in random order."""
        sizes = [task.size("train") for task in self.tasks.values()]
        return epoch_draws(sizes, self.quotas, seed, epoch)

    def lengths(self, split: str) -> Sequence[int]:
        import numpy as np

        places = self.places[split]
        found = np.zeros(len(places.parts), dtype=np.int64)
        for part, task in enumerate(self.tasks.values()):
            mine = places.parts == part
            if mine.any():
                found[mine] = np.asarray(task.lengths(split))[places.own[mine]]
        return found.tolist()

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        import torch

        chosen = torch.as_tensor(list(indices))
        parts, own = (x[chosen.numpy()] for x in (self.places[split].parts, self.places[split].own))
        made: dict[str, Batch] = {}
        rows: dict[str, Tensor] = {}
        for part, (name, task) in enumerate(self.tasks.items()):
            if (mine := parts == part).any():
                rows[name] = torch.from_numpy(mine)
                made[name] = task.batch(split, own[mine].tolist(), epoch)
        batch = next(iter(made.values())) if len(made) == 1 else self._joined(made, rows)
        return batch | {f"{OF_TASK}{name}": mine for name, mine in rows.items()}

    def _joined(self, made: Mapping[str, Batch], rows: "Mapping[str, Tensor]") -> Batch:
        """Return the batches of several tasks as one, padded where they are padded themselves."""
        import torch

        count, joined = sum(int(mine.sum()) for mine in rows.values()), {}
        assert len({frozenset(batch) for batch in made.values()}) == 1, "tasks of unlike batches"
        masks = [batch["attention_mask"] for batch in made.values() if "attention_mask" in batch]
        left = any(bool((mask[:, 0] == 0).any()) for mask in masks)
        for key in next(iter(made.values())):
            tensors = {name: batch[key] for name, batch in made.items()}
            first, *_ = tensors.values()
            shape = [max(t.shape[axis] for t in tensors.values()) for axis in range(1, first.dim())]
            fill = {"input_ids": self.pad, "labels": UNKNOWN}.get(key, 0)
            whole = torch.full((count, *shape), fill, dtype=first.dtype)
            for name, tensor in tensors.items():
                width = tensor.shape[1:]
                place = [
                    slice(n - w, n) if left else slice(w) for n, w in zip(shape, width, strict=True)
                ]
                padded = torch.full((len(tensor), *shape), fill, dtype=first.dtype)
                padded[(slice(None), *place)] = tensor
                whole[rows[name]] = padded
            joined[key] = whole
        return joined

    def _split(self, batch: Batch) -> "Iterator[tuple[str, Batch, Tensor | None]]":
        """Yield each task's name, its rows as its own batch, and where they stand (None: all are its own)."""
        marks = {k.removeprefix(OF_TASK): x for k, x in batch.items() if k.startswith(OF_TASK)}
        plain = {key: x for key, x in batch.items() if not key.startswith(OF_TASK)}
        if len(marks) == 1:
            yield next(iter(marks)), plain, None
            return
        for name, mine in marks.items():
            yield name, {key: x[mine] for key, x in plain.items()}, mine.nonzero().flatten()

    def _model(self, name: str, model: "nn.Module") -> Any:
        return Own(model, self.heads[name]) if self.heads else model

    def inputs(self, split: str, index: int) -> dict[str, object]:
        name, own = self._place(split, index)
        return self.tasks[name].inputs(split, own)

    def source_row(self, split: str, index: int) -> int:
        name, own = self._place(split, index)
        return self.tasks[name].source_row(split, own)

    def _place(self, split: str, index: int) -> tuple[str, int]:
        """Return the task of an example, and which of its own examples it is."""
        places = self.places[split]
        return self.names[places.parts[index]], int(places.own[index])

    def count(self, batch: Batch) -> int:
        return sum(self.tasks[name].count(own) for name, own, _ in self._split(batch))

    def loss(self, model: "nn.Module", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        losses = [
            self.tasks[name].loss(self._model(name, model), own, label_smoothing)
            for name, own, _ in self._split(batch)
        ]
        return sum(losses[1:], start=losses[0])

    def predict(self, model: "nn.Module", batch: Batch) -> list[dict[str, object]]:
        found: dict[int, dict[str, object]] = {}
        for name, own, rows in self._split(batch):
            made = self.tasks[name].predict(self._model(name, model), own)
            where = range(len(made)) if rows is None else rows.tolist()
            found |= {i: {"task": name, **row} for i, row in zip(where, made, strict=True)}
        return [found[i] for i in sorted(found)]

    def writes(self, split: str) -> bool:
        """Say whether one of the tasks writes texts for a split."""
        return any(_writes(task, split) for task in self.tasks.values())

    @property
    def at_evaluations(self) -> list[int]:
        """Return the validation examples that the tasks have drawn, by their places among those of all."""
        places, found = self.places["validation"], []
        for part, task in enumerate(self.tasks.values()):
            writer = as_writer(task)
            own = set(writer.at_evaluations) if writer else set()
            mine = (places.parts == part).nonzero()[0].tolist()
            found += [index for index in mine if int(places.own[index]) in own]
        return sorted(found)

    def complete(
        self, model: "nn.Module", split: str, indices: Sequence[int]
    ) -> list[dict[str, object]]:
        """Return what the tasks that write make of examples; nothing for those of others.

        Where none writes for a split of itself, all that can do so do: it was asked for.
        """
        places, some = self.places[split], self.writes(split)
        found: dict[int, dict[str, object]] = {}
        for part, task in enumerate(self.tasks.values()):
            mine = [index for index in indices if places.parts[index] == part]
            writer = as_writer(task)
            if mine and writer and (writer.writes(split) or not some):
                own = [int(places.own[index]) for index in mine]
                found |= dict(zip(mine, writer.complete(model, split, own), strict=True))
        return [found.get(index, {}) for index in indices]


def _writes(task: Task, split: str) -> bool:
    writer = as_writer(task)
    return writer is not None and writer.writes(split)
