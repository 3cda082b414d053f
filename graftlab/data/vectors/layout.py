"""How vectors lie in a file: safetensors with one table of numbers, or numpy's own format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from graftlab.data.vectors.origin import Origin
from graftlab.errors import DataError, near_file

# Shapes: N vectors, D numbers each.

SUFFIXES = (".safetensors", ".npy")
"""Of files that are read."""
NAME = "embeddings"
"""The tensor's name in a file that graftlab writes."""
MADE_WITH = "made_with"
"""The key of a header's metadata that holds the `Origin`."""
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Number formats of safetensors, as numpy reads them; numpy has no bfloat16."""
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it


class Layout(NamedTuple):
    """Where the numbers of a file are."""

    offset: int
    """Bytes before the first number."""
    num_vectors: int
    width: int
    dtype: str
    """Key of `STORED`."""
    origin: Origin | None
    """What the vectors were made with; None where the file does not say."""


def read(path: Path) -> Layout:
    """Return how vectors lie in a file; none of them is read.

    Raises:
        DataError: it is missing, damaged, or holds no table (N, D) of floating-point numbers.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path.absolute()}.{near_file(path)}", kind="missing")
    found = _numpy(path) if path.suffix.lower() == ".npy" else _safetensors(path)
    if found.num_vectors < 1 or found.width < 1:
        raise _unfit(path, f"it holds {found.num_vectors} vectors of {found.width} numbers")
    return found


def _unfit(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read as vectors: {why}.", kind="unreadable")


def _safetensors(path: Path) -> Layout:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(LONGEST_HEADER, size - 8):
            raise _unfit(path, "it has no header of safetensors")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise _unfit(path, f"its header is damaged ({error})") from None
    if not isinstance(header, dict):
        raise _unfit(path, "its header is damaged (a mapping is wanted)")
    about = header.pop("__metadata__", {})
    if not isinstance(about, dict):
        raise _unfit(path, "its header is damaged (__metadata__ is no mapping)")
    for name, field in header.items():
        if not _describes(field):
            raise _unfit(
                path, f"its header is damaged ({name} has no dtype, shape and data_offsets)"
            )
    tables = {name: field for name, field in header.items() if len(field["shape"]) == 2}
    if NAME in tables:
        tables = {NAME: tables[NAME]}
    if len(tables) != 1:
        named = ", ".join(f"{name} {field['shape']}" for name, field in header.items()) or "nothing"
        raise _unfit(path, f"one table (N, D), or one named {NAME}, is wanted; it holds {named}")
    [field] = tables.values()
    if field["dtype"] not in STORED:
        raise _unfit(path, f"its numbers are {field['dtype']}, not one of {', '.join(STORED)}")
    begin, end = field["data_offsets"]
    num_vectors, width = field["shape"]
    wanted = num_vectors * width * BYTES[field["dtype"]]
    if end - begin != wanted:
        why = f"{num_vectors} vectors of {width} numbers {field['dtype']} have {wanted} bytes"
        raise _unfit(path, f"its header is damaged ({why}, and {end - begin} are named)")
    if 8 + length + end > size:
        raise _unfit(path, f"it is cut short: {size} bytes, of {8 + length + end} at least")
    return Layout(8 + length + begin, num_vectors, width, field["dtype"], _origin(path, about))


def _describes(field: object) -> bool:
    """Return whether an entry of a header says how a tensor lies in its file."""
    if not isinstance(field, dict) or not isinstance(field.get("dtype"), str):
        return False
    shape, offsets = field.get("shape"), field.get("data_offsets")
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        return False
    return all(type(number) is int and number >= 0 for number in [*shape, *offsets])


def _origin(path: Path, about: Mapping[str, str]) -> Origin | None:
    if MADE_WITH not in about:
        return None
    try:
        return Origin.from_json(json.loads(about[MADE_WITH]))
    except (ValueError, TypeError) as error:
        raise _unfit(path, str(error)) from None


def _numpy(path: Path) -> Layout:
    import numpy as np

    try:
        table: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unfit(path, str(error)) from None
    names = {stored: name for name, stored in STORED.items() if name != "BF16"}
    if not isinstance(table, np.ndarray):
        raise _unfit(path, "it holds several arrays, as .npz does; write the one with numpy.save")
    if table.ndim != 2 or table.dtype.str not in names:
        raise _unfit(
            path, f"a table (N, D) of floats is wanted; it holds {table.dtype} {table.shape}"
        )
    if not table.flags.c_contiguous:
        why = "its numbers stand column by column (Fortran order), and are read vector by vector"
        raise _unfit(path, f"{why}; write numpy.ascontiguousarray(table) instead")
    num_vectors, width = table.shape
    return Layout(table.offset, num_vectors, width, names[table.dtype.str], None)


def header(num_vectors: int, width: int, origin: Origin | None, dtype: str = "F32") -> bytes:
    """Return what stands before the numbers in a file of safetensors; they follow vector by vector."""
    import numpy as np

    size = num_vectors * width * np.dtype(STORED[dtype]).itemsize
    fields: dict[str, object] = {
        NAME: {"dtype": dtype, "shape": [num_vectors, width], "data_offsets": [0, size]}
    }
    if origin is not None:
        fields = {"__metadata__": {MADE_WITH: origin.as_text()}, **fields}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text
