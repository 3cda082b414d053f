"""Parts of a model's files kept on disk: `FILE/START-STOP.SHA256`, checked against their own name when read.

A model's folder is `OWNER--NAME/COMMIT`, so what is kept is never of another revision.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graftlab.errors import DiskError, ModelError
from graftlab.rundir import files
from graftlab.weights.layers.source import Counter, Stream, open_at

HASH = "?" * 64
STALE = 86400  # seconds after which a file that was begun counts as left by a process that died


class Kept:
    """What is kept of one model at one commit."""

    def __init__(self, folder: Path, counter: Counter) -> None:
        self.folder, self._counter = folder, counter

    def find(self, name: str, part: str) -> Path | None:
        """Return the file with a part (`0-4096`) of a model's file, if it is kept."""
        return next(iter((self.folder / name).glob(f"{part}.{HASH}")), None)

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator["Hashed"]:
        """Open a kept part; at the end it is checked, and has to have been read whole.

        Raises:
            ModelError: its sha256 is not the one in its name.
        """
        with open_at(path, 0, self._counter) as stream:
            hashed = Hashed(stream)
            yield hashed
        if (sha256 := hashed.sha256.hexdigest()) != path.suffix[1:]:
            raise ModelError(
                f"{path} is damaged: its sha256 is {sha256}. Delete it: it is fetched again.",
                kind="damaged",
            )

    @contextlib.contextmanager
    def writing(self, name: str, part: str, stream: Stream) -> Iterator["Copied"]:
        """Hand on `stream` and keep what is read of it, once all of it was.

        Raises:
            DiskError: there is no room for it.
        """
        folder = self.folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{part}.*{files.PARTIAL}"):
                if time.time() - old.stat().st_mtime > STALE:
                    old.unlink(missing_ok=True)
            partial = folder / f"{part}.{time.time_ns()}{files.PARTIAL}"
            with partial.open("wb") as file:
                try:
                    copied = Copied(stream, file)
                    yield copied
                    file.flush()
                    files.sync(partial)
                    partial.replace(folder / f"{part}.{copied.sha256.hexdigest()}")
                    files.sync(folder)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            if advice := files.trouble(error):
                raise DiskError(
                    f"{self.folder} cannot be written: {error}. {advice}, or set HF_HOME to another disk."
                ) from error
            raise


class Hashed:
    """A stream whose bytes are hashed as they pass."""

    def __init__(self, stream: Stream) -> None:
        self.sha256 = hashlib.sha256()
        self._stream = stream

    def read_into(self, view: memoryview) -> None:
        self._stream.read_into(view)
        self.sha256.update(view)


class Copied(Hashed):
    """A stream whose bytes are written to a file as they pass."""

    def __init__(self, stream: Stream, file: BinaryIO) -> None:
        super().__init__(stream)
        self._file = file

    def read_into(self, view: memoryview) -> None:
        super().read_into(view)
        self._file.write(view)
