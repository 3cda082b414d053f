"""Which examples each step sees, and in which micro-batches: a function of the seed and the step alone."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts import Batch, Task, as_mixture
from graftlab.seeds import mix
from graftlab.training.parallel.share import Share
from graftlab.training.workers import Ahead

BUCKET = 50  # batches that are sorted together: as transformers' group_by_length, random enough


def epoch_batches(
    lengths: NDArray[np.int64], batch_size: int, seed: int, group: bool
) -> list[NDArray[np.int64]]:
    """Return one epoch as batches of indices; every example stands in exactly one of them.

    With `group`, batches hold examples of like length: the shuffled order is cut into buckets of
    50 batches, each bucket is sorted, cut into batches, and the batches are shuffled.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    if not group:
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    batches = []
    for start in range(0, len(order), BUCKET * batch_size):
        bucket = order[start : start + BUCKET * batch_size]
        bucket = bucket[np.argsort(-lengths[bucket], kind="stable")]
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def mixed_batches(
    drawn: NDArray[np.int64],
    lengths: NDArray[np.int64],
    parts: NDArray[np.int64],
    size: int,
    seed: int,
) -> list[NDArray[np.int64]]:
    """Return draws, which stand in random order, as batches in which each part has examples of like length.

    How many examples of which part a batch has stays as it was drawn: only within a part, and within a
    bucket of 50 batches, examples change their batches.
    """
    generator = np.random.default_rng(seed)
    drawn = drawn.copy()
    for start in range(0, len(drawn), BUCKET * size):
        bucket = drawn[start : start + BUCKET * size]
        batch_of = np.arange(len(bucket)) // size
        before, turns = bucket.copy(), generator.permutation(batch_of[-1] + 1)
        for part in np.unique(parts[before]):
            places = np.flatnonzero(parts[before] == part)
            mine = before[places]
            ranked = mine[np.argsort(-lengths[mine], kind="stable")]
            bucket[places[np.argsort(turns[batch_of[places]], kind="stable")]] = ranked
            turns = generator.permutation(turns)
    return [drawn[i : i + size] for i in range(0, len(drawn), size)]


@dataclass(frozen=True, eq=False)
class Order:
    """The batches of a whole run, by step (from 1), the same for any number of processes."""

    lengths: NDArray[np.int64]
    batch_size: int
    seed: int
    group: bool = True
    parts: NDArray[np.int64] | None = None
    """Of several tasks in one: the number of each example's task."""
    draws: Callable[[int, int], NDArray[np.int64]] | None = None
    """What an epoch sees, by (seed, epoch), in random order; every example once unless given."""

    @classmethod
    def of(cls, task: Task, batch_size: int, seed: int, group: bool) -> "Order":
        """Return the order of a task's train split."""
        lengths = np.asarray(task.lengths("train"), dtype=np.int64)
        mixture = as_mixture(task)
        parts, draws = (mixture.parts("train"), mixture.draws) if mixture else (None, None)
        return cls(lengths, batch_size, seed, group, parts, draws)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    @functools.lru_cache(maxsize=2)  # noqa: B019 -- an Order lives as long as its run
    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        seed = mix(self.seed, "order", epoch)
        if self.draws is None or self.parts is None:
            return epoch_batches(self.lengths, self.batch_size, seed, self.group)
        drawn, size = self.draws(self.seed, epoch), self.batch_size
        if self.group:
            return mixed_batches(drawn, self.lengths, self.parts, size, seed)
        return [drawn[i : i + size] for i in range(0, len(drawn), size)]

    def epoch(self, step: int) -> int:
        """Return the epoch, from 0, that `step` belongs to."""
        return (step - 1) // self.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """Return the examples of one optimizer step over all processes."""
        epoch = self._epoch(self.epoch(step))
        indices: list[int] = epoch[(step - 1) % self.steps_per_epoch].tolist()
        return indices

    def examples(self, steps: int) -> int:
        """Return how many examples the first `steps` steps see."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        first = epochs * self.steps_per_epoch + 1
        begun = sum(len(self.batch(step)) for step in range(first, first + rest))
        return epochs * len(self.lengths) + begun

    def micro_batches(self, step: int, size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
        """Cut one step's examples for one of `world` processes; each piece is of one part."""
        indices = self.batch(step)
        if self.parts is None:
            return micro_batches(indices, size, rank, world)
        number = self.parts.__getitem__
        by_part = itertools.groupby(sorted(indices, key=number)[rank::world], key=number)
        return [piece for _, mine in by_part for piece in micro_batches(list(mine), size)]


def micro_batches(
    indices: Sequence[int], micro_batch_size: int, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """Cut one step's examples for one of `world` processes: rank r takes every world-th example."""
    mine = indices[rank::world]
    return [list(mine[i : i + micro_batch_size]) for i in range(0, len(mine), micro_batch_size)]


class Batches:
    """The micro-batches of each step on this process, whoever makes them and when."""

    def __init__(
        self, task: Task, order: Order, num_steps: int, share: Share, workers: int
    ) -> None:
        """`workers` processes make them ahead of time; 0 for on the spot."""
        self.task, self.order, self.num_steps, self.share = task, order, num_steps, share
        self.micro_batch_size = order.batch_size
        self._ahead = Ahead(self.make, num_steps, workers) if workers else None

    def get(self, step: int) -> list[Batch]:
        """Return the micro-batches of `step`."""
        return self._ahead.get(step) if self._ahead else self.make(step)

    def make(self, step: int) -> list[Batch]:
        """Return the micro-batches of `step`, made here and now."""
        epoch = self.order.epoch(step)
        return [self.task.batch("train", indices, epoch) for indices in self._cut(step)]

    def restart(self) -> None:
        """End the workers, if there are any: the micro-batch has changed, or the run has ended."""
        if self._ahead:
            self._ahead.end()

    def _cut(self, step: int) -> list[list[int]]:
        share = self.share
        return self.order.micro_batches(step, self.micro_batch_size, share.rank, share.world)

    def count(self, step: int) -> int:
        """Return in how many micro-batches the examples of `step` go through on this process."""
        return len(self._cut(step))

    def idle(self, step: int) -> list[Batch]:
        """Return an example for each micro-batch that this process has less than the one with most."""
        size, world = self.micro_batch_size, self.share.world
        counts = [len(self.order.micro_batches(step, size, rank, world)) for rank in range(world)]
        missing = max(counts) - counts[self.share.rank]
        if not missing:
            return []
        first = self.order.batch(step)[:1]
        return [self.task.batch("train", first, self.order.epoch(step))] * missing

    def parts(self, step: int) -> list[int]:
        """Return for each micro-batch, of a task made of several, the number of its task; else nothing."""
        parts = self.order.parts
        return [] if parts is None else [int(parts[indices[0]]) for indices in self._cut(step)]
