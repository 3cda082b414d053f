"""The micro-batches of each step, made on the spot or ahead of time by worker processes."""

import os
import signal
import sys
from typing import Any

from graftlab.contracts import Batch, Task
from graftlab.training.launch import Share
from graftlab.training.order import Order

__all__ = ["Batches", "Share"]


class Batches:
    """What each step sees: a function of the step alone, whoever computes it and when."""

    def __init__(
        self, task: Task, order: Order, num_steps: int, share: Share, workers: int
    ) -> None:
        self.task, self.order, self.num_steps = task, order, num_steps
        self.share, self.workers = share, workers
        self.micro_batch_size = order.batch_size
        self._ahead: Any = None  # a DataLoader's iterator

    def make(self, step: int) -> list[Batch]:
        """Return the micro-batches of `step` for this process."""
        epoch = self.order.epoch(step)
        return [self.task.batch("train", indices, epoch) for indices in self._cut(step)]

    def _cut(self, step: int) -> list[list[int]]:
        share = self.share
        return self.order.micro_batches(step, self.micro_batch_size, share.rank, share.world)

    def count(self, step: int) -> int:
        """Return in how many micro-batches the examples of `step` go through on this process."""
        return len(self._cut(step))

    def idle(self, step: int) -> list[Batch]:
        """Return an example for each micro-batch that this process has less than the one with most."""
        share = self.share
        counts = [
            len(self.order.micro_batches(step, self.micro_batch_size, rank, share.world))
            for rank in range(share.world)
        ]
        missing = max(counts) - counts[share.rank]
        if not missing:
            return []
        first = self.order.batch(step)[:1]
        return [self.task.batch("train", first, self.order.epoch(step))] * missing

    def parts(self, step: int) -> list[int]:
        """Return for each micro-batch, of a task made of several, the number of its task; else nothing."""
        parts = self.order.parts
        return [] if parts is None else [int(parts[indices[0]]) for indices in self._cut(step)]

    def get(self, step: int) -> list[Batch]:
        """Return what `make` would, from the workers if there are any and they are at this step."""
        if not self.workers:
            return self.make(step)
        if self._ahead is None:
            self._ahead = iter(self._loader(step))
        made, batches = next(self._ahead)
        assert made == step, (made, step)
        return batches

    def restart(self) -> None:
        """End the workers and what they have made: the micro-batch has changed, or the run has ended."""
        if self._ahead is not None:
            # at once and not with the last reference, which a traceback may hold
            self._ahead._shutdown_workers()
        self._ahead = None

    def _loader(self, first: int) -> Any:
        from torch.utils.data import DataLoader

        # The tokenizer has done its work; its threads must not be carried into a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        steps = _Steps(self)
        return DataLoader(
            steps,  # type: ignore[arg-type]
            batch_size=None,
            sampler=range(first, self.num_steps + 1),
            num_workers=self.workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            worker_init_fn=_leave_signals_to_the_run,
            # in a process of a forkserver, as those of a study are, it would be another server
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )


class _Steps:
    """The mapping from step to batches that a DataLoader's workers read."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> tuple[int, list[Batch]]:
        return step, self.batches.make(step)


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal to all processes must not take the batches from the step that is to be finished: the
    first SIGTERM is for the run, a second one ends a worker that did not stop when told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _as_it_is(item: tuple[int, list[Batch]]) -> tuple[int, list[Batch]]:
    return item
