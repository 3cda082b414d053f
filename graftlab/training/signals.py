"""SIGTERM and the first Ctrl-C finish the step and save; a second Ctrl-C leaves at once."""

import contextlib
import logging
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from graftlab.errors import Stopped
from graftlab.training.parallel.processes import Processes

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
log = logging.getLogger("graftlab")


class Signals:
    """Whether someone has asked the run to stop."""

    def __init__(self, run: Path | None = None) -> None:
        """With `run`, a stop says how its directory is gone on with."""
        self.run = run
        self.received: signal.Signals | None = None
        self._interruptible = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if (
            number == signal.SIGHUP
        ):  # the terminal was closed: the run goes on, the log is in run.log
            log.warning("the terminal is gone; the run goes on")
            return
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        log.warning("%s: saving after this step", self.received.name)
        if self._interruptible:
            self._interruptible = False  # what is saved now is not to be interrupted
            raise self.stopped()

    def stopped(self) -> Stopped:
        assert self.received is not None
        return Stopped(
            f"stopped by {self.received.name}; go on with `{self._resume()}`",
            EXIT_CODES[self.received],
        )

    def _resume(self) -> str:
        return "graftlab resume" + (f" {shlex.quote(str(self.run))}" if self.run else "")

    def agreed(self, processes: Processes) -> bool:
        """Return whether to stop: a signal to one process is one to all."""
        terminate, interrupt = processes.add(
            self.received == signal.SIGTERM, self.received == signal.SIGINT
        )
        if self.received is None and (terminate or interrupt):
            self.received = signal.SIGTERM if terminate else signal.SIGINT
            log.warning("%s in another process: saving after this step", self.received.name)
        return self.received is not None

    def check(self) -> None:
        """Raise `Stopped` if a signal has come: between stages, where there is nothing to save."""
        if self.received is not None:
            raise self.stopped()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end what is inside at once: an evaluation, which can be done again."""
        self.check()
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals inside, and put the former handlers back afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; a notebook's cell in a thread has none
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        former = {number: signal.signal(number, self.handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
