"""Singular values and vectors on disk, where they are asked for: a safetensors file a line of the spectra."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import About
from graftlab.rundir import files

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats


class Vectors:
    """A folder of files: MODEL/CHECKPOINT/WEIGHT.safetensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, about: About, layer: str, arrays: "Mapping[str, Floats]") -> None:
        """Write the arrays of one line, whole or not at all."""
        from safetensors.numpy import save_file

        step = "last" if about.checkpoint is None else str(about.checkpoint)
        place = self.folder / files.plain(about.model) / step
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{files.plain(layer)}.safetensors"
        with files.new_file(path) as partial:
            save_file({name: values.copy(order="C") for name, values in arrays.items()}, partial)
