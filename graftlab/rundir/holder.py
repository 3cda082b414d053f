"""Which process holds a run's lock: asked without taking it, so that a run may begin meanwhile."""

import contextlib
import os
import re
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HELD = re.compile(r"process ([1-9]\d*) on (\S+)")
LONGEST = 1_000  # bytes of what a lock's file says
BEAT_S = 10.0
"""So often the time of a lock that is held is set: other machines see by it that its holder lives."""


class Holder(NamedTuple):
    """The process that works on a run."""

    process: int
    """0 where it has not said it yet."""
    host: str
    """The machine; empty where it has not said it yet."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.host else "another process"


def holder(lock: Path) -> Holder | None:
    """Return the process that holds a lock's file, if one does."""
    import fcntl

    try:
        file = lock.open("rb")
    except OSError:
        return None
    with file:
        found = fcntl.fcntl(file, fcntl.F_GETLK, _flock(fcntl.F_WRLCK))
        if _type(found) == fcntl.F_UNLCK:
            return None
        said = HELD.fullmatch(file.read(LONGEST).decode("utf-8", "replace").strip())
    return Holder(int(said[1]), said[2]) if said else Holder(0, "")


@contextlib.contextmanager
def signs_of_life(lock: int) -> Iterator[None]:
    """Set the time of a lock's file, given by its descriptor, again and again."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a disk that is away for a moment
                os.utime(lock)

    beats = threading.Thread(target=beat, name="signs of life", daemon=True)
    beats.start()
    try:
        yield
    finally:
        over.set()
        beats.join()


def _flock(kind: int) -> bytes:
    """Return C's `struct flock` for a lock of a whole file."""
    if sys.platform == "darwin":  # start, length, process, type, whence
        return struct.pack("qqihh", 0, 0, 0, kind, os.SEEK_SET)
    return struct.pack("hhqqi", kind, os.SEEK_SET, 0, 0, 0)


def _type(flock: bytes) -> int:
    found: int = struct.unpack_from("h", flock, 20 if sys.platform == "darwin" else 0)[0]
    return found
