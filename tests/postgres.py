"""A PostgreSQL server of a test's own, where Debian's is installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
WHY = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def user() -> str | None:
    """Return whom the server runs as: it refuses to run as root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("the server does not run as root, and there is no user postgres")


class Server(NamedTuple):
    """A server that can be stopped and started again."""

    url: str
    control: Callable[[str], None]
    """Given `stop` or `start`."""


@contextmanager
def server() -> Iterator[Server]:
    """Yield a server that is gone afterwards."""
    if not PROGRAMS:
        pytest.skip(WHY)
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL is installed")
    folder, runs_as, port = Path(tempfile.mkdtemp(prefix="graftlab-pg-")), user(), free_port()
    if runs_as:
        shutil.chown(folder, runs_as)
    made = {"user": runs_as, "cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    programs, data = PROGRAMS[-1], folder / "data"
    secret = folder / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "graftlab", "-A", "scram-sha-256",
             "--pwfile", secret, "--no-sync"], **made,
        )  # fmt: skip
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        program = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options]

        def control(what: str) -> None:
            subprocess.run([*program, "-m", "immediate", what], **made)

        control("start")
        try:
            yield Server(f"postgresql+psycopg://graftlab:s3cret@127.0.0.1:{port}/postgres", control)
        finally:
            control("stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
