"""Arrays that take long to make of texts: kept on disk by what decides them, and mapped into memory.

A file is `DECIDED.CONTENT.safetensors`, two sha256: of what decides the arrays, and of the file. It is
written beside and renamed, so that it is whole or not there; one that is not what its name says is made
again. Processes that map the same file have it in memory once.
"""

import contextlib
import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.rundir import files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("graftlab")
FOLDER = "tokens"
"""Its name under `paths.cache`."""
LEAST = 2**20
"""Characters of texts whose arrays are worth a file: about a third of a second of a tokenizer."""
MOST = 4 * 2**30
"""Bytes of all files; where a new one makes them more, those go that were not used for the longest time."""
STALE_S = 86400.0  # a file that was begun so long ago is of a process that died
ENDING = ".safetensors"
DTYPES = {"I32": "<i4", "I64": "<i8", "BOOL": "?"}  # as safetensors names them


class _Place(NamedTuple):
    folder: Path
    least: int
    most: int


_PLACE: ContextVar[_Place | None] = ContextVar("kept_arrays", default=None)


@contextlib.contextmanager
def kept_in(cache: Path, least: int = LEAST, most: int = MOST) -> Iterator[None]:
    """Keep arrays under `cache`, a run file's `paths.cache`; outside of this none are kept.

    Those of texts of less than `least` characters are made anew; of all, `most` bytes are kept.
    """
    token = _PLACE.set(_Place(cache / FOLDER, least, most))
    try:
        yield
    finally:
        _PLACE.reset(token)


def of(
    texts: Sequence[str | None],
    decided_by: Callable[[], Iterable[str]],
    make: Callable[[], Mapping[str, "NDArray[Any]"]],
) -> Mapping[str, "NDArray[Any]"]:
    """Return what `make` returns, of int32, int64 or bool; where it is kept, it is mapped to be read only.

    It has to follow from the `texts` and from what it is `decided_by` besides. A folder that cannot be read
    or written is said, and the arrays are made.
    """
    place = _PLACE.get()
    if place is None or sum(len(text) for text in texts if text is not None) < place.least:
        return make()
    name, made = _sha256([*texts, None, *decided_by()]), None
    try:
        if (path := _find(place.folder, name)) is None:
            made = make()
            path = _write(place, name, made)
        return _mapped(path)
    except OSError as error:
        log.warning("tokens cannot be kept in %s: %s", place.folder, error)
        return make() if made is None else made


def _sha256(parts: Iterable[str | None]) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = b"" if part is None else part.encode("utf-8", "surrogatepass")
        found.update((-1 if part is None else len(data)).to_bytes(8, "little", signed=True))
        found.update(data)
    return found.hexdigest()


def _find(folder: Path, name: str) -> Path | None:
    """Return a file that is whole."""
    for path in folder.glob(f"{name}.*{ENDING}"):
        with contextlib.suppress(FileNotFoundError):  # taken away since it was seen
            if files.sha256(path) == path.name.split(".")[1]:
                with contextlib.suppress(PermissionError):  # of another user, who may read it
                    os.utime(path)
                return path
            log.warning("%s is damaged: its tokens are made again", path)
            path.unlink()
    return None


def _write(place: _Place, name: str, arrays: Mapping[str, "NDArray[Any]"]) -> Path:
    import numpy as np
    from safetensors.numpy import save

    place.folder.mkdir(parents=True, exist_ok=True)
    partial = place.folder / f"{name}.{os.getpid()}-{time.time_ns()}{files.PARTIAL}"
    try:
        partial.write_bytes(save({key: np.asarray(x, order="C") for key, x in arrays.items()}))
        files.sync(partial)
        path = place.folder / f"{name}.{files.sha256(partial)}{ENDING}"
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _make_room(place, path)
    return path


def _make_room(place: _Place, newest: Path) -> None:
    """Take away what is more than is to be kept, and what processes that died have begun."""
    sizes: list[tuple[float, int, Path]] = []
    for path in place.folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            told = path.stat()
            if path.suffix == ENDING and path != newest:
                sizes.append((told.st_mtime, told.st_size, path))
            elif path.suffix == files.PARTIAL and time.time() - told.st_mtime > STALE_S:
                path.unlink()
    left = place.most - newest.stat().st_size
    for _, size, path in sorted(sizes, reverse=True):
        left -= size
        if left < 0:
            path.unlink(missing_ok=True)


def _mapped(path: Path) -> dict[str, "NDArray[np.generic]"]:
    """Return a file's arrays; they are where the file is mapped."""
    import numpy as np

    with path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    begin = 8 + int.from_bytes(whole[:8], "little")
    found: dict[str, NDArray[np.generic]] = {}
    for name, told in json.loads(whole[8:begin]).items():
        first, last = told["data_offsets"]
        flat = np.frombuffer(memoryview(whole)[begin + first : begin + last], DTYPES[told["dtype"]])
        found[name] = flat.reshape(told["shape"])
    return found
