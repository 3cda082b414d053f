"""One run in a process of its own, so that its peak of memory is its own.

Processes are forked from a server that has imported what runs need, which costs a tenth of a second
where a fresh process costs ten. The server is started anew and never computes anything, so no thread
of torch exists when it forks, whatever the process that asks has done before.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from graftlab.config import Document
from graftlab.data import foreign_code
from graftlab.errors import GraftlabError, Stopped
from graftlab.rundir import limits
from graftlab.training.signals import EXIT_CODES

log = logging.getLogger("graftlab")

# `graftlab.adapters` goes before `peft`, whose import it keeps quiet.
PRELOADED = (
    "torch",
    "transformers",
    "graftlab.adapters",
    "peft",
    "accelerate",
    "graftlab.auto",
    "graftlab.runs.execution",
)
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
FORKS = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """How a run's process has ended."""

    cause: str | None
    """Why the run is not finished; None if it is."""
    warnings: tuple[str, ...] = ()


class Stop:
    """Passes SIGINT and SIGTERM on to the run at work, and remembers that the study is to stop."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.child: int | None = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(self.child, number)

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals inside. Outside the main thread nobody may: a notebook's cell in one.

        A terminal that is closed (SIGHUP) stops neither the study nor its server, which inherits this.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self._handle) for number in EXIT_CODES}
        former[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def check(self, how_to_go_on: str) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.received is not None:
            raise Stopped(
                f"stopped by {self.received.name}; {how_to_go_on}", EXIT_CODES[self.received]
            )


def carry_out(folder: Path, document: Document | None, quiet: bool, stop: Stop) -> Ended:
    """Run `document` into `folder`, or go on with what is there if it is None, in another process."""
    here, there = FORKS.Pipe(duplex=False)
    process = FORKS.Process(
        target=_work, args=(folder, document, (quiet, foreign_code.is_allowed()), there)
    )
    process.start()
    there.close()  # so that the end of the process is the end of the pipe
    stop.child = process.pid
    if stop.received is not None and process.pid is not None:  # it came in between
        os.kill(process.pid, stop.received)
    try:
        ended = Ended(*here.recv())
    except EOFError:
        process.join()
        ended = Ended(_killed(process.exitcode or 0, folder))
    process.join()
    stop.child = None
    here.close()
    return ended


def _killed(code: int, folder: Path) -> str:
    if code >= 0:
        return f"its process ended with code {code}; see {folder / 'run.log'}"
    name = signal.Signals(-code).name
    memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{memory}"


class _Collect(logging.Handler):
    """Keeps warnings for the parent, which says each once and not once a run."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:  # an error is the cause, which is told apart
            self.messages.append(record.getMessage())


def _work(
    folder: Path, document: Document | None, how: tuple[bool, bool], pipe: Connection
) -> None:
    """`how`: whether it is quiet, and whether functions of other packages may make rows."""
    from graftlab import runfile
    from graftlab.runs import session

    _follow_parent()
    collect = _Collect()
    log.handlers[:] = [collect]
    cause: str | None = None
    try:
        quiet, allow_code = how
        options = session.Options(quiet=quiet)
        with foreign_code.allowed(allow_code):
            if document is None:
                session.resume(folder, options)
            else:
                session.run(runfile.resolve(document), folder, options=options)
    except GraftlabError as error:
        cause = f"{type(error).__name__}: {error}"
    except Exception as error:  # a bug: the others run all the same, and run.log has the traceback
        short = limits.exceeded(error)
        bug = f"{type(error).__name__}: {error}. This is a bug; see {folder / 'run.log'}"
        cause = f"{type(short).__name__}: {short}" if short else bug
    pipe.send((cause, tuple(dict.fromkeys(collect.messages))))


def _follow_parent() -> None:
    """Take signals from the parent alone, once each; and be told to save when it is gone."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_DFL)  # until the run sets its own
    os.setpgid(0, 0)  # Ctrl-C in a terminal goes to a whole group
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
