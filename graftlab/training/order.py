"""Which example when: a function of (seed, epoch), so that a resumed run needs nothing but the step."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftlab.seeds import mix

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


@dataclass(frozen=True, eq=False)
class Order:
    """The batches of a whole run, by step (from 1), the same for any number of processes."""

    lengths: NDArray[np.int64]
    batch_size: int
    seed: int
    group: bool = True

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    @functools.lru_cache(maxsize=2)  # noqa: B019 -- an Order lives as long as its run
    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        seed = mix(self.seed, "order", epoch)
        return epoch_batches(self.lengths, self.batch_size, seed, self.group)

    def epoch(self, step: int) -> int:
        """Return the epoch, from 0, that `step` belongs to."""
        return (step - 1) // self.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """Return the examples of one optimizer step over all processes."""
        return self._epoch(self.epoch(step))[(step - 1) % self.steps_per_epoch].tolist()


def micro_batches(
    indices: Sequence[int], micro_batch_size: int, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """Cut one step's examples for one of `world` processes: rank r takes every world-th example."""
    mine = indices[rank::world]
    return [list(mine[i : i + micro_batch_size]) for i in range(0, len(mine), micro_batch_size)]
