"""Batches made ahead of time by worker processes, which may be killed or hang."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from graftlab.contracts import Batch
from graftlab.errors import DataError

Make = Callable[[int], list[Batch]]

log = logging.getLogger("graftlab")
POLL = 5.0  # seconds after which it is looked whether the workers live
PATIENCE = 600.0  # seconds without a batch after which they are taken to hang


class Ahead:
    """What `make` returns for each step, made by worker processes while the steps before it train."""

    def __init__(self, make: Make, num_steps: int, workers: int) -> None:
        self.make, self.num_steps, self.workers = make, num_steps, workers
        self._batches: Any = None  # a DataLoader's iterator

    def get(self, step: int) -> list[Batch]:
        """Return what `make` would. Workers that are killed or hang begin again at this step, once.

        Raises:
            DataError: they are lost again.
        """
        lost = ""
        for _ in range(2):
            if self._batches is None:
                with _sigchld_left_alone():
                    self._batches = iter(self._loader(step))
            try:
                made, batches = self._next()
            except _Lost as error:
                lost = str(error)
                log.warning("the workers that make batches are lost at step %d: %s", step, lost)
                self.end()
                continue
            assert made == step, (made, step)
            return batches
        raise DataError(
            f"the workers that make batches were lost twice at step {step}: {lost}. Where they are killed, "
            f"memory has run out most often. Set training.workers lower, or 0, and go on with "
            f"`graftlab resume`."
        )

    def _next(self) -> tuple[int, list[Batch]]:
        """Return what the workers give next. `Raises:` _Lost: they have ended, or hang."""
        waited = 0.0
        while True:
            try:
                found: tuple[int, list[Batch]] = next(self._batches)
                return found
            except (RuntimeError, OSError, EOFError) as error:
                text = str(error)
                if "in DataLoader worker process" in text:  # the task's own error, made again here
                    raise
                # the tensors of a batch are fetched from the worker that made it, which may be gone
                if "DataLoader worker (pid" in text or not isinstance(error, RuntimeError):
                    raise _Lost(text.partition("\n")[0]) from error
                if "DataLoader timed out" not in text:
                    raise
                waited += POLL
                if waited >= PATIENCE:
                    self._show_stacks()
                    raise _Lost(f"no batch has come for {waited:.0f} seconds") from error

    def _show_stacks(self) -> None:
        """Have each worker write where it is to standard error."""
        for worker in self._batches._workers:
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGUSR1)
                time.sleep(0.5)  # for it to write, before another does into the same lines

    def end(self) -> None:
        """End the workers and what they have made; the next step that is wanted begins new ones."""
        if self._batches is not None:
            # at once and not with the last reference, which a traceback may hold
            self._batches._shutdown_workers()
            for worker in self._batches._workers:  # one that hangs has not heard
                worker.kill()
                worker.join()
        self._batches = None

    def _loader(self, first: int) -> Any:
        from torch.utils.data import DataLoader

        # The tokenizer has done its work; its threads must not be carried into a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return DataLoader(
            _Steps(self.make),  # type: ignore[arg-type]
            batch_size=None,
            sampler=range(first, self.num_steps + 1),
            num_workers=self.workers,
            timeout=POLL,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            worker_init_fn=_leave_signals_to_the_run,
            # in a process of a forkserver, as those of a study are, it would be another server
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )


class _Steps:
    """The mapping from step to batches that a DataLoader's workers read."""

    def __init__(self, make: Make) -> None:
        self.make = make

    def __getitem__(self, step: int) -> tuple[int, list[Batch]]:
        return step, self.make(step)


class _Lost(Exception):
    """Workers have ended or hang."""


@contextlib.contextmanager
def _sigchld_left_alone() -> Iterator[None]:
    """Take back torch's handler, which raises wherever the run happens to be when a worker ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal to all processes must not take the batches from the step that is to be finished: the
    first SIGTERM is for the run, a second one ends a worker that did not stop when told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    faulthandler.register(signal.SIGUSR1)


def _as_it_is(item: tuple[int, list[Batch]]) -> tuple[int, list[Batch]]:
    return item
