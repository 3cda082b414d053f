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
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from graftlab.config import Document
from graftlab.data import foreign_code
from graftlab.errors import GraftlabError, Stopped
from graftlab.rundir import limits
from graftlab.rundir.run import Run
from graftlab.runs.options import SPLITS
from graftlab.training.signals import EXIT_CODES
from graftlab.workers.slots import Slot

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
WATCH_EVERY_S = 1.0
FORMER_S = 120.0
"""A lock of another machine whose time was not set for so long is passed over."""
TOLD_S = 5.0
TAKEN = ("in_use", "finished", "not_finished")  # what a run that another has begun is refused by
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
FORKS = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """How a run's process has ended."""

    cause: str | None
    """Why the run is not finished; None if it is."""
    warnings: tuple[tuple[str, str], ...] = ()
    """What it has said, each with what the command line calls it: warning or note."""
    taken: bool = False
    """Whether another process was quicker to begin the run."""


class Orders(NamedTuple):
    """How a run's process carries it out."""

    quiet: bool = False
    """No progress on the terminal."""
    allow_code: bool = False
    """Whether functions of other packages may make rows."""
    splits: tuple[str, ...] = SPLITS
    """The splits that are scored at the end."""
    slot: Slot = Slot(0, None)
    """What of the machine it may use."""
    compared: bool = False
    """Whether what a comparison shows beside scores is measured."""
    data: Mapping[str, Any] | None = None
    """The fingerprints that the rows of a new run must have; None for any."""


Watch = Callable[[], signal.Signals | None]
"""Called every second while a run goes on; each signal that it returns, the run is sent once."""


def unwatched() -> None:
    """Send nothing."""


class Stop:
    """Passes SIGINT and SIGTERM on to the runs at work, and remembers that all is to stop."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.children: set[int] = set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for child in tuple(self.children):
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(child, number)

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


def preload(modules: Sequence[str] = ()) -> None:
    """Have what runs import, and further modules, imported once, by the server that processes come from."""
    FORKS.set_forkserver_preload([*PRELOADED, *modules])


def carry_out(
    folder: Path,
    document: Document | None,
    orders: Orders,
    stop: Stop,
    watch: Watch = unwatched,
) -> Ended:
    """Run `document` into `folder`, or go on with what is there if it is None, in another process.

    SIGTERM of the `watch` asks the run to save and end.
    """
    run, former = Run(folder), False
    while True:
        seen, again = _await_former(run, stop), former
        former = former or seen
        if former and run.finished:
            return Ended(None)
        if former and run.started:  # and what it has left is gone on with
            document = None
        ended = _in_a_process(folder, document, orders, stop, watch)
        if not ended.taken or stop.received is not None or (again and not seen):
            return ended
        former = True  # two began at once: the other goes first


def _in_a_process(
    folder: Path, document: Document | None, orders: Orders, stop: Stop, watch: Watch
) -> Ended:
    here, there = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_work, args=(folder, document, orders, there))
    _start_server()
    process.start()
    there.close()  # so that the end of the process is the end of the pipe
    assert process.pid is not None
    stop.children.add(process.pid)
    if stop.received is not None:  # it came in between
        os.kill(process.pid, stop.received)
    sent = set[signal.Signals]()
    try:
        while not here.poll(WATCH_EVERY_S):
            if (wanted := watch()) is not None and wanted not in sent:
                sent.add(wanted)
                os.kill(process.pid, wanted)
        ended = Ended(*here.recv())
    except EOFError:
        process.join()
        ended = Ended(_killed(process.exitcode or 0, folder))
    except BaseException:
        process.terminate()  # it saves
        raise
    finally:
        process.join()
        stop.children.discard(process.pid)
        here.close()
    return ended


def _start_server() -> None:
    """Start the server that processes come from, unless it runs. No Ctrl-C reaches it: while it imports what
    runs need it would die of one, and of what is begun nobody would say how to go on."""
    resource_tracker.ensure_running()  # which else lets the signal through again
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _await_former(run: Run, stop: Stop) -> bool:
    """Wait until nobody works on a run any more, and say whether somebody did.

    Where a worker was killed, its run saves and ends by itself.
    """
    began = time.monotonic()
    waited = told = False
    while stop.received is None and (holder := run.held_by()) is not None:
        seconds, waited = time.monotonic() - began, True
        elsewhere = not holder.endswith(f" on {socket.gethostname()}")
        if elsewhere and _silent_s(run.path) > FORMER_S:
            (run.path / "lock").unlink(missing_ok=True)
            break
        if seconds > TOLD_S and not told:
            told = True
            log.warning("%s is in use by %s; waiting for it to end", run.path, holder)
        time.sleep(0.1)
    return waited


def _silent_s(folder: Path) -> float:
    """Return how long ago the time of a run's lock was set, by the file system's own clock."""
    try:
        with tempfile.TemporaryFile(dir=folder) as now, (folder / "lock").open() as lock:
            return os.fstat(now.fileno()).st_mtime - os.fstat(lock.fileno()).st_mtime
    except OSError:
        return 0.0


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
        self.messages: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:  # an error is the cause, which is told apart
            self.messages.append((getattr(record, "word", "warning"), record.getMessage()))


def _work(folder: Path, document: Document | None, orders: Orders, pipe: Connection) -> None:
    from graftlab import runfile
    from graftlab.runs import session

    _follow_parent()
    _keep_to(orders.slot)
    collect = _Collect()
    log.handlers[:] = [collect]
    cause: str | None = None
    taken = False
    try:
        options = session.Options(
            orders.quiet, splits=orders.splits, compared=orders.compared, data=orders.data
        )
        with foreign_code.allowed(orders.allow_code):
            if document is None:
                session.resume(folder, options)
            else:
                session.run(runfile.resolve(document), folder, options=options)
    except GraftlabError as error:
        cause = f"{type(error).__name__}: {error}"
        taken = any(one.kind in TAKEN for one in error.problems)
    except Exception as error:  # a bug: the others run all the same, and run.log has the traceback
        short = limits.exceeded(error)
        bug = f"{type(error).__name__}: {error}. This is a bug; see {folder / 'run.log'}"
        cause = f"{type(short).__name__}: {short}" if short else bug
    pipe.send((cause, tuple(dict.fromkeys(collect.messages)), taken))


def _keep_to(slot: Slot) -> None:
    """Use no more of the machine than the slot has."""
    if slot.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpus
    if slot.threads is not None:
        import torch

        torch.set_num_threads(slot.threads)


def _follow_parent() -> None:
    """Take signals from the parent alone, once each; and be told to save when it is gone."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_DFL)  # until the run sets its own
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)
    os.setpgid(0, 0)  # Ctrl-C in a terminal goes to a whole group
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
