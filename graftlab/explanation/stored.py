"""The weights of a model folder by name, one in memory at a time and no model object."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ModelError
from graftlab.weights import pretrained
from graftlab.weights.layers.source import Folder
from graftlab.weights.layers.tensors import FLOATS
from graftlab.weights.layers.tensors import Table as Tensors

if TYPE_CHECKING:
    from torch import Tensor


class Stored:
    """A model's checkpoint in safetensors."""

    def __init__(self, model: str, revision: str | None = None) -> None:
        """Open a folder, an alias or a hub id. `Raises:` ModelError, Refused: as `pretrained.locate`."""
        located = pretrained.locate(model, revision)
        self.source, self.folder = located.source, located.folder
        self._tensors = Tensors(Folder(located.folder, located.source))
        self._last: tuple[str, Tensor] | None = None

    @property
    def names(self) -> list[str]:
        """All its tensors, as they are stored."""
        return list(self._tensors.file_of)

    @functools.cached_property
    def _by_end(self) -> dict[str, list[str]]:
        ends: dict[str, list[str]] = {}
        for stored in self.names:
            parts = stored.split(".")
            for start in range(len(parts)):
                ends.setdefault(".".join(parts[start:]), []).append(stored)
        return ends

    def find(self, name: str) -> str | None:
        """Return what a weight of the model is called here: its own name, or the one that it ends with or
        that ends with it, where a head has put a prefix before it or a base lacks one. None of none."""
        if name in self._tensors.file_of:
            return name
        ends = self._by_end.get(name, [])
        if len(ends) == 1:
            return ends[0]
        parts = name.split(".")
        for start in range(1, len(parts) - 1):
            if (shorter := ".".join(parts[start:])) in self._tensors.file_of:
                return shorter
        return None

    def read(self, name: str) -> "Tensor | None":
        """Return a weight in float32; None where there is none of that name. The last is kept.

        Raises:
            ModelError: it is stored in few bits, or its file is damaged.
        """
        import torch

        stored = self.find(name)
        if stored is None:
            return None
        if (dtype := self._tensors.entry(stored).dtype) not in FLOATS:
            raise ModelError(
                f"{self.source}: {stored} is stored as {dtype}. Give the model in float32, float16 or "
                f"bfloat16 that it was made from.",
                kind="quantized",
            )
        if self._last is None or self._last[0] != stored:
            read = self._tensors.read({name: stored}, torch.float32, keep=False)
            self._last = stored, read.tensors[name]
        return self._last[1]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a weight's shape; None where there is none of that name."""
        stored = self.find(name)
        return None if stored is None else self._tensors.entry(stored).shape


@functools.cache
def opened(model: str) -> Stored:
    """Return a model's checkpoint, opened once."""
    return Stored(model)


def is_model(path: Path) -> bool:
    """Say whether a folder holds a whole model."""
    return (path / "config.json").is_file() and any(path.glob("*.safetensors"))
