"""Which bytes of which file are which tensor: the headers of safetensors files, and reading by them.

A safetensors file is 8 bytes (the header's length, little-endian), a JSON header (name -> dtype, shape,
data_offsets from the header's end), and the tensors' bytes (https://github.com/huggingface/safetensors).
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.errors import ModelError
from graftlab.layers.source import AGAIN, INDEX, Source

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 100_000_000  # bytes; the library's own limit
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


class Entry(NamedTuple):
    """One tensor of a checkpoint."""

    name: str
    file: str
    dtype: str
    """As the header has it: F32, BF16, ..."""
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    stop: int

    @property
    def num_bytes(self) -> int:
        return self.stop - self.start


class Stored(NamedTuple):
    """Tensors as they were asked for, with a hash of what is stored."""

    tensors: "dict[str, Tensor]"
    sha256: str


class Table:
    """The tensors of a checkpoint. A file's header is read when a tensor of that file is asked for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._headers: dict[str, dict[str, Entry]] = {}
        if source.index == INDEX:
            self.file_of: Mapping[str, str] = _read_index(source)
        else:
            self.file_of = dict.fromkeys(self._header(source.index), source.index)

    def entry(self, name: str) -> Entry:
        """Return where a tensor is.

        Raises:
            ModelError: the checkpoint has none of this name, or its file is missing or damaged.
        """
        if name not in self.file_of:
            raise ModelError(f"the checkpoint {self.source.name} has no tensor {name}")
        file = self.file_of[name]
        if name not in (header := self._header(file)):
            raise ModelError(f"{self.source.name}: {file} lacks {name}, which {INDEX} says it has")
        return header[name]

    def _header(self, file: str) -> dict[str, Entry]:
        if file not in self._headers:
            self._headers[file] = _read_header(self.source, file)
        return self._headers[file]

    def read(self, names: Mapping[str, str], then: "Callable[[str, Tensor], Tensor]") -> "Stored":
        """Return tensors by what `names` calls them (our name -> the checkpoint's).

        Each is handed to `then` and let go before the next is read. The hash covers our names, dtypes,
        shapes and bytes as stored.
        """
        ours = {self.entry(stored): name for name, stored in names.items()}
        tensors, digests = {}, {}
        for run in _runs(ours):
            with self.source.stream(run[0].file, run[0].start, run[-1].stop) as stream:
                for entry in run:
                    raw = _empty(entry.num_bytes)
                    stream.read_into(memoryview(raw.numpy()))
                    name = ours[entry]
                    digests[name] = _line(name, entry.dtype, entry.shape, raw)
                    tensors[name] = then(name, as_tensor(raw, entry.dtype, entry.shape))
        return Stored(tensors, _hash_lines(digests.values()))

    def rows(self, name: str, numbers: list[int]) -> "Tensor":
        """Return rows of a matrix, (len(numbers), columns), in its own dtype; only those are read."""
        entry = self.entry(name)
        columns = entry.shape[1]
        width = columns * ITEM_SIZES[entry.dtype]
        raw = _empty(len(numbers) * width)
        view = memoryview(raw.numpy())
        for place, number in enumerate(numbers):
            start = entry.start + number * width
            with self.source.stream(entry.file, start, start + width) as stream:
                stream.read_into(view[place * width : (place + 1) * width])
        return as_tensor(raw, entry.dtype, (len(numbers), columns))


def hash_of(tensors: "Mapping[str, Tensor]") -> str:
    """Return the hash that `Table.read` gives of these tensors when they are stored as they are."""
    import torch

    stored = {getattr(torch, name): dtype for dtype, name in FLOATS.items()}
    return _hash_lines(
        _line(
            name,
            stored[tensor.dtype],
            tuple(tensor.shape),
            tensor.contiguous().view(-1).view(torch.uint8),
        )
        for name, tensor in tensors.items()
    )


def _line(name: str, dtype: str, shape: tuple[int, ...], raw: "Tensor") -> str:
    digest = hashlib.sha256(memoryview(raw.numpy())).hexdigest()
    return f"{name} {dtype} {list(shape)} {digest}\n"


def _hash_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _empty(num_bytes: int) -> "Tensor":
    import torch

    return torch.empty(num_bytes, dtype=torch.uint8)


def as_tensor(raw: "Tensor", dtype: str, shape: tuple[int, ...]) -> "Tensor":
    """Return bytes, (N,) uint8, as the tensor that they are; nothing is copied."""
    import torch

    return raw.view(getattr(torch, FLOATS[dtype])).view(shape)


def _runs(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Yield the entries in the files' order, those that lie side by side together."""
    run: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: (entry.file, entry.start)):
        if run and (run[-1].file, run[-1].stop) != (entry.file, entry.start):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


def _read_index(source: Source) -> dict[str, str]:
    try:
        found = json.loads(source.text(INDEX))["weight_map"]
        return {str(name): str(file) for name, file in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{source.name}: {INDEX} is damaged: {error!r}. {AGAIN}") from error


def _read_header(source: Source, file: str) -> dict[str, Entry]:
    """Return the tensors of a file.

    Raises:
        ModelError: the file is missing, has no header, or is not as long as the header says.
    """
    size = source.size(file)
    where = f"{source.name}: {file} is damaged"
    if size < 8:
        raise ModelError(f"{where}: {size} bytes are no safetensors file. {AGAIN}")
    length = int.from_bytes(_read_bytes(source, file, 0, 8), "little")
    if length > min(MAX_HEADER, size - 8):
        raise ModelError(
            f"{where}: it has no safetensors header, or ends in it ({size} bytes). {AGAIN}"
        )
    try:
        header: dict[str, Any] = json.loads(_read_bytes(source, file, 8, 8 + length))
        header.pop("__metadata__", None)
        entries = {
            name: Entry(
                name,
                file,
                facts["dtype"],
                tuple(facts["shape"]),
                8 + length + facts["data_offsets"][0],
                8 + length + facts["data_offsets"][1],
            )
            for name, facts in header.items()
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{where}: it has no safetensors header. {AGAIN}") from error
    expected = max((entry.stop for entry in entries.values()), default=8 + length)
    if expected != size:
        raise ModelError(f"{where}: {size} bytes instead of {expected}. {AGAIN}")
    for entry in entries.values():
        if (
            entry.num_bytes != math.prod(entry.shape) * ITEM_SIZES.get(entry.dtype, 0)
            and entry.dtype in FLOATS
        ):
            raise ModelError(
                f"{where}: {entry.name} has {entry.num_bytes} bytes for {entry.shape}. {AGAIN}"
            )
    return entries


def _read_bytes(source: Source, file: str, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    with source.stream(file, start, stop) as stream:
        stream.read_into(memoryview(buffer))
    return bytes(buffer)
