"""The weights of a model folder by name, one in memory at a time and no model object."""

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ModelError
from graftlab.weights import pretrained, quantized
from graftlab.weights.layers.source import Folder
from graftlab.weights.layers.tensors import FLOATS
from graftlab.weights.layers.tensors import Table as Tensors

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger("graftlab")


class Stored:
    """A model's checkpoint in safetensors."""

    def __init__(self, model: str, revision: str | None = None) -> None:
        """Open a folder, an alias or a hub id. `Raises:` ModelError, Refused: as `pretrained.locate`."""
        located = pretrained.locate(model, revision)
        self.source, self.folder = located.source, located.folder
        self._tensors = Tensors(Folder(located.folder, located.source))
        self._last: tuple[str, Tensor] | None = None
        self._said = False

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
        """Return a weight in float32, read from few bits where bitsandbytes has stored it in 4 or 8; None
        where there is none of that name. The last is kept.

        Raises:
            ModelError: it is stored in few bits otherwise, or its file is damaged.
        """
        import torch

        stored = self.find(name)
        if stored is None:
            return None
        if self._last is None or self._last[0] != stored:
            if self._tensors.entry(stored).dtype in FLOATS:
                read = self._tensors.read({name: stored}, torch.float32, keep=False).tensors[name]
            else:
                read = self._dequantized(stored)
            self._last = stored, read
        return self._last[1]

    def _dequantized(self, stored: str) -> "Tensor":
        layer = stored.rpartition(".")[0]
        beside = [n for n in self.names if n.startswith((f"{stored}.", f"{layer}.SCB"))]
        raw = {name.removeprefix(f"{layer}."): self._raw(name) for name in (stored, *beside)}
        found = quantized.read(raw)
        if found is None:
            raise ModelError(
                f"{self.source}: {stored} is stored as {self._tensors.entry(stored).dtype}, and not as "
                f"bitsandbytes does. Give the model in float32, float16 or bfloat16 that it was made from.",
                kind="quantized",
            )
        if not self._said:
            log.info("%s is quantized: its weights are what their few bits stand for.", self.source)
            self._said = True
        return found

    def _raw(self, stored: str) -> "Tensor":
        from safetensors import safe_open

        with safe_open(self.folder / self._tensors.entry(stored).file, "pt") as file:
            tensor: Tensor = file.get_tensor(stored)
        return tensor

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a weight's shape; None where there is none of that name."""
        stored = self.find(name)
        if stored is None:
            return None
        state = next((n for n in self.names if n.startswith(f"{stored}.{quantized.STATE}")), None)
        if state is not None:  # in 4 bits: packed
            return quantized.shape(self._raw(state))
        return self._tensors.entry(stored).shape


@functools.cache
def opened(model: str) -> Stored:
    """Return a model's checkpoint, opened once."""
    return Stored(model)


def is_model(path: Path) -> bool:
    """Say whether a folder holds a whole model."""
    return (path / "config.json").is_file() and any(path.glob("*.safetensors"))
