"""The bytes of a model's files, read where they are asked for and counted: the contract, and a folder's."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

from graftlab.contracts import Note
from graftlab.errors import ModelError
from graftlab.weights.hub import refuse_pickles

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
AGAIN = "Delete it and fetch it again."
UNQUANTIZED = "Choose the checkpoint in float32, float16 or bfloat16 that it was made from."
MAX_HEADER = 100_000_000  # bytes; safetensors' own limit


class Header(NamedTuple):
    """The beginning of a safetensors file."""

    json: bytes
    size: int
    """Of the whole file, in bytes."""


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
    """The commit on the hub; of a folder, sha256 over the index or the single file's header."""
    folder: Path
    """Holds config.json."""
    index: str
    """`model.safetensors.index.json`, or `model.safetensors` where there is one file."""
    notes: list[Note]
    """What the user has to know of how it was read."""
    remote: bool
    gap: int
    """Up to so many bytes between two rows, one read of both is cheaper than two."""
    workers: int
    """How many reads at a time are of use."""

    @property
    def bytes_read(self) -> int:
        """Return what was read so far, config.json and index included."""
        ...

    def text(self, name: str) -> bytes:
        """Return a small file whole."""
        ...

    def header(self, name: str) -> Header:
        """Return a weight file's header.

        Raises:
            ModelError: there is no such file, or it is no safetensors file.
        """
        ...

    def stream(
        self, name: str, start: int, stop: int, keep: bool
    ) -> contextlib.AbstractContextManager[Stream]:
        """Open bytes `start` to `stop` of a weight file; `keep`: they may be asked for again."""
        ...


class Counter:
    """A number of bytes that several threads may add to."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.total += number


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
                    f"{self._file.name} is damaged: it ends {len(view) - done} bytes too early. {AGAIN}",
                    kind="damaged",
                )
            self._counter.add(got)
            done += got


@contextlib.contextmanager
def open_at(path: Path, start: int, counter: Counter) -> Iterator[FileStream]:
    """Open a file at a place. Reads are explicit, never maps: what is counted is what is read."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        yield FileStream(file, counter)


def read_header(path: Path, counter: Counter) -> Header:
    """Return the header of a safetensors file.

    Raises:
        ModelError: it has none.
    """
    size = path.stat().st_size
    with open_at(path, 0, counter) as stream:
        length = bytearray(min(8, size))
        stream.read_into(memoryview(length))
        header = bytearray(header_length(length, size, str(path)))
        stream.read_into(memoryview(header))
    return Header(bytes(header), size)


def header_length(first: bytes | bytearray, size: int, where: str) -> int:
    """Return the length of a header from the first 8 bytes of a safetensors file of `size` bytes.

    Raises:
        ModelError: they are not the beginning of such a file.
    """
    if size < 8:
        raise ModelError(
            f"{where} is damaged: {size} bytes are no safetensors file. {AGAIN}", kind="damaged"
        )
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER:
        raise ModelError(
            f"{where} is damaged: it has no safetensors header. {AGAIN}", kind="damaged"
        )
    if 8 + length > size:
        raise ModelError(
            f"{where} is damaged: {size} bytes instead of more than {8 + length}. {AGAIN}",
            kind="damaged",
        )
    return length


class Folder:
    """A model in a folder."""

    remote, gap, workers = False, 0, 1

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """Open a folder; `name` is what its model is known by, if not by the folder."""
        self.folder, self.name = folder, name or str(folder.absolute())
        self.notes: list[Note] = []
        self._counter = Counter()
        self.index = find_index(self.name, [path.name for path in folder.iterdir()])
        told = (folder / INDEX).read_bytes() if self.index == INDEX else self._first_header()
        self.revision = hashlib.sha256(told).hexdigest()

    def _first_header(self) -> bytes:
        return read_header(self.folder / SINGLE, Counter()).json  # counted when it is used

    @property
    def bytes_read(self) -> int:
        return self._counter.total

    def text(self, name: str) -> bytes:
        content = (self.folder / name).read_bytes()
        self._counter.add(len(content))
        return content

    def header(self, name: str) -> Header:
        if not (self.folder / name).is_file():
            raise ModelError(
                f"{self.folder} lacks {name}, which {self.index} names", kind="missing"
            )
        return read_header(self.folder / name, self._counter)

    def stream(
        self, name: str, start: int, stop: int, keep: bool
    ) -> contextlib.AbstractContextManager[FileStream]:
        return open_at(self.folder / name, start, self._counter)


def find_index(where: str, names: list[str]) -> str:
    """Return which of a model's files says where its tensors are, as transformers chooses.

    Raises:
        ModelError: there are no weights in safetensors.
        Refused: the weights are pickles.
    """
    for name in (SINGLE, INDEX):
        if name in names:
            return name
    refuse_pickles(where, names)
    raise ModelError(
        f"{where} holds no weights: neither {SINGLE} nor {INDEX}. Name the whole model, of which the "
        f"one layer is read.",
        kind="no_weights",
    )
