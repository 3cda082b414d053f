"""Which processes work in a directory: each holds a lock that goes with it, and gives signs of life.

A process of this machine lives while its lock is held: the system gives it up however the process ends. Locks
of another machine may outlive it, or not be seen from here; there the lock file's time decides, which its
holder sets as often as it has written beside it. Times are compared on the file system's own clock.
"""

import contextlib
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from graftlab.errors import ANOTHER, ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run

BEAT_S = 20.0
"""Seconds between two signs of life, unless said otherwise."""
MISSED = 6
"""So many signs that do not come, and a process of another machine is taken for dead."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
PROBE = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except (BlockingIOError, PermissionError):
    sys.exit(3)
"""
BEAT = "beat_s"
"""The file beside a process's lock that says how often its signs of life come, in seconds."""
HELD = 3  # the probe's answer where the lock of another process keeps it out


def machine() -> str:
    """Return what tells this machine from others, until it is started again: its name and its kernel's."""
    booted = BOOT.read_text().strip()[:8] if BOOT.is_file() else f"{time.time():.0f}"
    return f"{socket.gethostname() or platform.node()}-{booted}"


class Presence:
    """This process among those that work in a directory."""

    def __init__(self, folder: Path, beat_s: float = BEAT_S) -> None:
        self.folder, self.beat_s = folder, beat_s
        self.machine = machine()
        self.name = f"{self.machine}-{os.getpid()}-{time.time_ns()}"
        self.began = 0.0
        """When it came, by the file system's clock."""
        self._gone = threading.Event()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold this process's lock, and give signs of life.

        Raises:
            ConfigError: locks do not work in the folder.
        """
        own = Run(self.folder / self.name)
        with own.lock():
            check_locks(own.path / "lock")
            files.write_text(own.path / BEAT, f"{self.beat_s}\n")
            self.began = self._now()
            beats = threading.Thread(target=self._beat, name="signs of life", daemon=True)
            beats.start()
            try:
                yield
            finally:
                self._gone.set()
                beats.join()
                for name in ("lock", BEAT):
                    (own.path / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    own.path.rmdir()

    def _beat(self) -> None:
        while not self._gone.wait(self.beat_s):
            with contextlib.suppress(OSError):  # a disk that is away for a moment
                self._now()

    def _now(self) -> float:
        """Give a sign of life, and return its time."""
        path = self.folder / self.name / "lock"
        os.utime(path)
        return path.stat().st_mtime

    def alive(self, name: str) -> bool:
        """Say whether a process is at work. One's own lock is not looked at: that would give it up."""
        if name == self.name:
            return True
        if name.rsplit("-", 2)[0] == self.machine:
            return Run(self.folder / name).held_by() is not None
        try:
            with (self.folder / name / "lock").open(
                "rb"
            ) as file:  # opened: not as it is remembered
                seen = os.fstat(file.fileno()).st_mtime
            return self._now() - seen < MISSED * self._beat_of(name)
        except OSError:
            return False

    def _beat_of(self, name: str) -> float:
        """Return how often another's signs of life come; as one's own where it has not written it yet."""
        try:
            return float((self.folder / name / BEAT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return self.beat_s


def check_locks(held: Path) -> None:
    """Refuse a folder where the lock that this process holds keeps no other out. `Raises:` ConfigError."""
    asked = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROBE, str(held)], capture_output=True, text=True
    )
    if asked.returncode != HELD:
        why = asked.stderr.strip().rpartition("\n")[2] or "a lock that is held keeps nobody out"
        raise ConfigError(
            f"file locks do not work in {held.parents[2]} ({why}): several processes would carry out the "
            f"same run. Mount it with locks (NFS: without nolock; Lustre: with flock).",
            ANOTHER, kind="no_locks", given=str(held.parents[2]),
        )  # fmt: skip
