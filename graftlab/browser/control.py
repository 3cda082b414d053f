"""A run stopped and gone on with from outside: by the signal and the command that a terminal would use."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

from graftlab.errors import ConfigError
from graftlab.rundir.run import Run
from graftlab.training.signals import EXIT_CODES

SPOKEN = "graftlab: "
"""What an error of the command line begins with."""
STOPPED = {*EXIT_CODES.values(), *(-number for number in EXIT_CODES)}
"""Exit codes of a process that was asked to stop; negative where that came before it listened."""
LONGEST = 2_000  # characters of what a command has said


def stop(run: Run) -> None:
    """Ask the process that works on a run, or on a study, to save and end.

    Raises:
        ConfigError: there is none, or not on this machine, or it belongs to somebody else.
    """
    held = run.holder()
    if held is None:
        raise ConfigError(
            f"{run.path} is not running: there is nothing to stop.", kind="not_running"
        )
    if held.host != socket.gethostname():
        raise ConfigError(f"{run.path} runs on {held.host}: stop it there.", kind="elsewhere")
    try:
        os.kill(held.process, signal.SIGTERM)
    except PermissionError:
        said = f"process {held.process} belongs to another user: ask them to stop it."
        raise ConfigError(said, kind="not_allowed") from None
    except ProcessLookupError:
        pass  # it has ended by itself


class _Child(NamedTuple):
    process: subprocess.Popen[bytes]
    said: IO[bytes]


class Resumed:
    """Runs gone on with from here, each by `graftlab resume` in a process that outlives this one."""

    def __init__(self) -> None:
        self._children: dict[Path, _Child] = {}

    def resume(self, run: Run) -> None:
        """Go on with a run.

        Raises:
            ConfigError: it is finished, running, or no run.
        """
        if not run.started or run.finished:
            what = "finished" if run.finished else "no run"
            said = f"{run.path} is {what}: there is nothing to go on with."
            raise ConfigError(said, kind=what.replace(" ", "_"))
        if run.holder() is not None or self.starting(run):
            raise ConfigError(f"{run.path} is running already.", kind="in_use")
        heard = tempfile.TemporaryFile()  # noqa: SIM115  (is read when the process has ended)
        command = [sys.executable, "-m", "graftlab", "resume", str(run.path.absolute())]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=heard,
            start_new_session=True,
        )  # fmt: skip
        self._children[run.path] = _Child(process, heard)

    def starting(self, run: Run) -> bool:
        """Say whether a process that was started here has not ended yet."""
        child = self._children.get(run.path)
        return child is not None and child.process.poll() is None

    def complaint(self, run: Run) -> str | None:
        """Return what a command said that could not go on with a run; None where it could, or was stopped."""
        child = self._children.get(run.path)
        if child is None or child.process.poll() in (None, 0, *STOPPED):
            return None
        if run.finished or run.holder() is not None:
            return None
        child.said.seek(0)
        text = child.said.read().decode("utf-8", "replace")
        return text[max(0, text.find(SPOKEN)) :].strip()[:LONGEST]
