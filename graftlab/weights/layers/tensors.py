"""Which bytes of which file are which tensor: the headers of safetensors files, and reading by them.

A safetensors file is 8 bytes (the header's length, little-endian), a JSON header (name -> dtype, shape,
data_offsets from the header's end), and the tensors' bytes (https://github.com/huggingface/safetensors).
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graftlab.errors import ModelError
from graftlab.weights.layers.source import AGAIN, INDEX, Source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MOST = 1 << 23  # bytes of rows in one read: enough that its start does not count


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
            raise ModelError(
                f"{self.source.name}: {file} lacks {name}, which {INDEX} says it has",
                kind="missing",
            )
        return header[name]

    def _header(self, file: str) -> dict[str, Entry]:
        if file not in self._headers:
            self._headers[file] = _read_header(self.source, file)
        return self._headers[file]

    def read(self, names: Mapping[str, str], dtype: "torch.dtype", keep: bool) -> "Stored":
        """Return tensors in `dtype` by what `names` calls them (our name -> the checkpoint's).

        One is read and converted after the other. The hash covers our names, and dtypes, shapes and
        bytes as stored. `keep`: they may be asked for again.
        """
        ours = {self.entry(stored): name for name, stored in names.items()}
        tensors, lines = {}, []
        for run in _runs(ours):
            with self.source.stream(run[0].file, run[0].start, run[-1].stop, keep) as stream:
                for entry in run:
                    raw = _empty(entry.num_bytes)
                    stream.read_into(raw.numpy().data)
                    lines.append(_line(ours[entry], entry.dtype, entry.shape, raw))
                    tensors[ours[entry]] = as_tensor(raw, entry.dtype, entry.shape).to(dtype)
                    del raw  # before room is made for the next
        return Stored(tensors, _hash_lines(lines))

    def rows(self, name: str, numbers: Sequence[int]) -> "Tensor":
        """Return rows of a matrix, (len(numbers), columns), as stored; `numbers` rise.

        Only they are read, and what lies between two that are nearer than the source's gap.
        """
        entry = self.entry(name)
        width = entry.shape[1] * ITEM_SIZES[entry.dtype]
        raw = _empty(len(numbers) * width)
        view = raw.numpy().data

        def read(places: range) -> None:
            first, last = numbers[places[0]], numbers[places[-1]]
            start, stop = entry.start + first * width, entry.start + (last + 1) * width
            buffer = memoryview(bytearray(stop - start))
            with self.source.stream(entry.file, start, stop, keep=False) as stream:
                stream.read_into(buffer)
            for place in places:
                offset = (numbers[place] - first) * width
                view[place * width : (place + 1) * width] = buffer[offset : offset + width]

        with ThreadPoolExecutor(self.source.workers) as readers:
            for _ in readers.map(read, _groups(numbers, self.source.gap // width, MOST // width)):
                pass
        return as_tensor(raw, entry.dtype, (len(numbers), entry.shape[1]))


def _groups(numbers: Sequence[int], gap: int, most: int) -> Iterator[range]:
    """Yield places of numbers that follow each other with at most `gap` between, `most` from end to end."""
    begin = 0
    for place in range(1, len(numbers) + 1):
        if (
            place == len(numbers)
            or numbers[place] - numbers[place - 1] > gap + 1
            or numbers[place] - numbers[begin] >= most
        ):
            yield range(begin, place)
            begin = place


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
    digest = hashlib.sha256(raw.numpy().data).hexdigest()
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
        file_of = {str(name): str(file) for name, file in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{source.name}: {INDEX} is damaged: {error!r}. {AGAIN}", kind="damaged"
        ) from error
    if outside := sorted(file for file in file_of.values() if Path(file).name != file):
        raise ModelError(
            f"{source.name}: {INDEX} names {outside[0]}, which is outside its folder",
            kind="outside",
        )
    return file_of


def _read_header(source: Source, file: str) -> dict[str, Entry]:
    """Return the tensors of a file.

    Raises:
        ModelError: the file is missing, has no header, or is not as long as the header says.
    """
    text, size = source.header(file)
    where = f"{file} of {source.name} is damaged"
    begin = 8 + len(text)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {
            name: Entry(
                name, file, facts["dtype"], tuple(facts["shape"]), begin + start, begin + stop
            )
            for name, facts in header.items()
            for start, stop in (facts["data_offsets"],)
        }
        expected = max((entry.stop for entry in entries.values()), default=begin)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{where}: it has no safetensors header. {AGAIN}", kind="damaged"
        ) from error
    if expected != size:
        raise ModelError(f"{where}: {size} bytes instead of {expected}. {AGAIN}", kind="damaged")
    for entry in entries.values():
        width = ITEM_SIZES.get(entry.dtype)
        if width and entry.num_bytes != math.prod(entry.shape) * width:
            raise ModelError(
                f"{where}: {entry.name} has {entry.num_bytes} bytes for {list(entry.shape)}. {AGAIN}"
            )
    return entries
