"""Write files so that a crash at any moment leaves the old one or the new one, never half of either."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ANOTHER, OUT, ConfigError, DiskError, ModelError, Place

if TYPE_CHECKING:
    from torch import Tensor

PARTIAL = ".partial"
WRITER = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.partial$")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BROKEN = (errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EXDEV)


def trouble(error: BaseException) -> str | None:
    """Return what to do where `error` comes from a disk that cannot be written, else None."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (said := re.search(r"os error (\d+)", str(error))):
        number = int(said[1])  # safetensors has an error of its own, with the number in its text
    if number in FULL:
        return "Free some room"
    return "Make the folder writable" if number in BROKEN else None


def sync(path: Path) -> None:
    """Make the file or folder at `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write, of this call alone, and move it over `path` in the end: whole, or
    what was there stays."""
    partial = _beside(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def _beside(path: Path) -> Path:
    """Return a name beside `path` of this call alone; what killed processes of this machine have left of
    their writes of `path` is deleted."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        found = WRITER.search(left.name)
        if found and found[1] == _host() and _gone(int(found[2])):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def is_partial(name: str, of: str) -> bool:
    """Return whether a file's name is one that `new_file` gives for a file `of` that name."""
    return name.startswith(f".{of}.") and name.endswith(PARTIAL)


def write_text(path: Path, text: str) -> None:
    """Write a small file in one move: beside it, then renamed over it."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def refuse_taken(out: Path) -> None:
    """Refuse a folder that holds something, or a file, or in which the caller is. `Raises:` ConfigError."""
    if out.is_dir() and out.samefile("."):
        said = f"{out} is the folder that you are in, and a new one would take its place."
        raise ConfigError(said, ("Name one in it with ", OUT, "."), kind="taken", given=str(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        said = f"{out} is there already and not empty."
        raise ConfigError(said, ANOTHER, kind="taken", given=str(out))


def unwritable(out: Path, error: OSError) -> DiskError:
    """Return the error to raise where a folder cannot be written."""
    said = f"{out} cannot be written: {error}."
    return DiskError(said, ANOTHER, kind="unwritable", given=str(out))


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write into, and move it to `out` in the end: whole, or not there.

    Raises:
        ConfigError: something is there already.
        DiskError: it cannot be written.
    """
    refuse_taken(out)
    there = out.resolve()
    partial = _beside(there)
    try:
        partial.mkdir(parents=True)
        try:
            yield partial
            for path in partial.rglob("*"):
                sync(path)
            refuse_taken(out)  # another call may have been quicker
            partial.replace(there)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync(there.parent)
    except OSError as error:
        raise unwritable(out, error) from error


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the file, and hold it."""
    import fcntl

    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def dump_json(value: object, indent: int | None = 2) -> str:
    """Return JSON that Python reads back equal; NaN and infinity are refused."""
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> None:
    write_text(path, dump_json(value))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Write tensors as safetensors, on the CPU and contiguous, and make them durable.

    One that shares its memory with another (bitsandbytes' code books) is written for each name.
    """
    from safetensors.torch import save_file

    apart, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    save_file(apart, path)
    sync(path)


def load_tensors(path: Path) -> "dict[str, Tensor]":
    from safetensors.torch import load_file

    return load_file(path)


def not_finite(tensors: "Mapping[str, Tensor]") -> str | None:
    """Return the name of the first tensor with a NaN or an infinity in it."""
    import torch

    return next((name for name, x in tensors.items() if not torch.isfinite(x).all()), None)


def of_no_use(path: Path, name: str) -> ModelError:
    """Return the error to raise where a tensor of a file is not finite."""
    said = f"{name} has numbers in it that are not finite: with it a model answers nothing."
    return ModelError(said, kind="not_finite", place=Place(str(path)), given=name)


def read_weights(path: Path) -> "dict[str, Tensor]":
    """Return the tensors that training has left in a file.

    Raises:
        ModelError: it is missing or damaged, or a number in it is not finite.
    """
    from safetensors import SafetensorError

    try:
        weights = load_tensors(path)
    except (OSError, SafetensorError) as error:
        said = f"it cannot be read: {error}."
        raise ModelError(said, kind="unreadable", place=Place(str(path))) from error
    if name := not_finite(weights):
        raise of_no_use(path, name)
    return weights


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(name: str) -> str:
    """Return a name that is one part of a path, whatever it was."""
    return re.sub(r"[^\w.=+-]+", "_", name).strip(".") or "_"
