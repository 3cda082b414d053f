"""Tensors set aside on disk while an analysis goes on, so that no two models are in memory together."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor


class Spool:
    """A temporary folder of tensors, gone when its `with` block ends."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="graftlab-analysis-")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def put(self, key: str, tensors: "Mapping[str, Tensor]") -> None:
        """Set tensors aside under a key that has none."""
        from safetensors.torch import save_file

        place = len(self._places)
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, self._path(place))
        self._places[key] = place

    def get(self, key: str) -> "dict[str, Tensor]":
        """Return what was put there."""
        from safetensors.torch import load_file

        return load_file(self._path(self._places[key]))

    def _path(self, place: int) -> Path:
        return Path(self._folder.name) / f"{place:06d}.safetensors"
