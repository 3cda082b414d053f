"""Tensors set aside on disk while an analysis goes on, so that no two models are in memory together."""

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, ClassVar, Self

from graftlab.rundir.holder import holder

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "graftlab-analysis-"
LOCK = "lock"
YOUNG_S = 60.0
"""Of a lock: its maker may not have taken it yet."""


class Spool:
    """A temporary folder of tensors, gone when its `with` block ends; one that was left by a process that was
    killed goes with the next.

    What is put there twice lies there once: two runs have the same base.
    """

    _open: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        self._places: dict[str, Path] = {}

    def __enter__(self) -> Self:
        _sweep(self._open)
        self._temporary = tempfile.TemporaryDirectory(prefix=PREFIX)
        self._folder = Path(self._temporary.name)
        self._open.add(self._folder.name)
        self._lock = _locked(self._folder / LOCK)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()
        self._open.discard(self._folder.name)
        self._temporary.cleanup()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def put(self, key: str, tensors: "Mapping[str, Tensor]") -> None:
        """Set tensors aside under a key that has none."""
        from safetensors.torch import save_file

        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        place = self._folder / f"{_digest(whole)}.safetensors"
        if not place.exists():
            save_file(whole, place)
        self._places[key] = place

    def get(self, key: str) -> "dict[str, Tensor]":
        """Return what was put there."""
        from safetensors.torch import load_file

        return load_file(self._places[key])


def _locked(path: Path) -> IO[str]:
    """Return a new file with a lock on it; where there are no locks it is gone again, and no one sweeps."""
    import fcntl

    file = path.open("w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        path.unlink()
    return file


def _digest(tensors: "Mapping[str, Tensor]") -> str:
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _sweep(own: set[str]) -> None:
    """Delete the folders that killed processes of this machine have left."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        if lock.parent.name in own or lock.parent.is_symlink():
            continue
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if time.time() - lock.lstat().st_mtime > YOUNG_S and holder(lock) is None:
                shutil.rmtree(lock.parent)
