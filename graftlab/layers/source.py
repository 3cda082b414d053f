"""The bytes of a model's files, read where they are asked for and counted."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Protocol

from graftlab.errors import ModelError
from graftlab.hub import refuse_pickles

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
AGAIN = "Delete it and fetch it again."


class Stream(Protocol):
    """An open file or answer, at the place that was asked for."""

    def read_into(self, view: memoryview) -> None:
        """Fill `view` with the next bytes.

        Raises:
            ModelError: there are not as many.
        """
        ...


class Source(Protocol):
    """Where a model's files come from."""

    name: str
    """The folder, or the hub id."""
    revision: str
    """The commit on the hub; sha256 over the index or the header for a folder."""
    folder: Path
    """Holds config.json."""
    index: str
    """`model.safetensors.index.json`, or `model.safetensors` where there is one file."""
    bytes_read: int
    """What was read so far, config.json and index included."""

    def text(self, name: str) -> bytes:
        """Return a small file whole."""
        ...

    def size(self, name: str) -> int:
        """Return a weight file's size in bytes.

        Raises:
            ModelError: there is no such file.
        """
        ...

    def stream(self, name: str, start: int, stop: int) -> contextlib.AbstractContextManager[Stream]:
        """Open bytes `start` to `stop` of a weight file."""
        ...


class Counter:
    """A number of bytes that several threads may add to."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.total += number


class Folder:
    """A model in a folder. Reads are explicit, never maps, so that what is counted is what is read."""

    def __init__(self, folder: Path, name: str = "", revision: str = "") -> None:
        self.folder, self.name = folder, name or str(folder.absolute())
        self._counter = Counter()
        self.index = self._find_index()
        self.revision = revision or self._hash()

    @property
    def bytes_read(self) -> int:
        return self._counter.total

    def _find_index(self) -> str:
        for name in (SINGLE, INDEX):  # as transformers prefers them
            if (self.folder / name).is_file():
                return name
        names = [path.name for path in self.folder.iterdir()]
        refuse_pickles(str(self.folder), names)
        raise ModelError(
            f"{self.folder} holds no weights: neither {SINGLE} nor {INDEX}. A layer is read from "
            f"the model's own checkpoint."
        )

    def _hash(self) -> str:
        if self.index == INDEX:
            return hashlib.sha256((self.folder / INDEX).read_bytes()).hexdigest()
        with (self.folder / SINGLE).open("rb") as file:
            length = file.read(8)
            return hashlib.sha256(file.read(int.from_bytes(length[:4], "little"))).hexdigest()

    def text(self, name: str) -> bytes:
        content = (self.folder / name).read_bytes()
        self._counter.add(len(content))
        return content

    def size(self, name: str) -> int:
        path = self.folder / name
        if not path.is_file():
            raise ModelError(f"{self.folder} lacks {name}, which {self.index} names. {AGAIN}")
        return path.stat().st_size

    @contextlib.contextmanager
    def stream(self, name: str, start: int, stop: int) -> Iterator["FileStream"]:
        with (self.folder / name).open("rb", buffering=0) as file:
            file.seek(start)
            yield FileStream(file, self._counter)


class FileStream:
    """A file, at the place that was asked for."""

    def __init__(self, file: FileIO, counter: Counter) -> None:
        self._file, self._counter = file, counter

    def read_into(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:])
            if not got:
                raise ModelError(
                    f"{self._file.name} is damaged: it ends {len(view) - done} bytes too early. {AGAIN}"
                )
            self._counter.add(got)
            done += got
