"""Vectors of a file, read through a memory map: opening reads none of them."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from graftlab.data.vectors import layout
from graftlab.data.vectors.origin import Origin
from graftlab.rundir.files import new_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: N vectors, D numbers each, K of them that are asked for.

COPIED = 2**24  # bytes that are copied at a time


class Vectors:
    """The vectors of one file."""

    def __init__(self, path: Path) -> None:
        """Open a file. `Raises:` DataError: it holds no vectors."""
        self.path = path
        self.layout = layout.read(path)

    def __len__(self) -> int:
        return self.layout.num_vectors

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.layout.width

    @property
    def origin(self) -> Origin | None:
        """What they were made with, if the file says so."""
        return self.layout.origin

    def take(self, places: "Sequence[int] | slice") -> "NDArray[np.float32]":
        """Return the vectors at these places as float32 (K, D)."""
        import numpy as np

        return np.array(widened(self._mapped_ND[places], self.layout.dtype))

    def stored(self, places: Sequence[int]) -> "np.ndarray":
        """Return the vectors at these places in the numbers of the file (K, D)."""
        return self._mapped_ND[list(places)]

    @functools.cached_property
    def _mapped_ND(self) -> "np.ndarray":
        import numpy as np

        shape = (self.layout.num_vectors, self.layout.width)
        stored = layout.STORED[self.layout.dtype]
        return np.memmap(self.path, stored, "r", self.layout.offset, shape)

    def __getstate__(self) -> dict[str, object]:
        """Leave the map behind: a worker process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "_mapped_ND"}


def widened(stored: "np.ndarray", dtype: str) -> "NDArray[np.float32]":
    """Return numbers as they are stored in a number format as float32."""
    import numpy as np

    if dtype == "BF16":  # the upper half of a float32
        return (np.asarray(stored).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(stored).astype(np.float32, copy=False)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write into that becomes `path` in the end: whole, or not at all."""
    with new_file(path) as partial, partial.open("wb") as file:
        yield file


def write(path: Path, vectors_ND: "np.ndarray", origin: Origin | None = None) -> None:
    """Write vectors as float32: whole, or not at all."""
    import numpy as np

    with _whole(path) as file:
        file.write(layout.header(len(vectors_ND), vectors_ND.shape[1], origin))
        file.write(np.ascontiguousarray(vectors_ND, "<f4").tobytes())


def copy(vectors: Vectors, places: Sequence[int], path: Path) -> None:
    """Write the vectors at these places as they are stored, with what they were made with."""
    import numpy as np

    found = vectors.layout
    size = found.width * np.dtype(layout.STORED[found.dtype]).itemsize
    at_once = max(1, COPIED // size)
    with _whole(path) as file:
        file.write(layout.header(len(places), found.width, found.origin, found.dtype))
        for first in range(0, len(places), at_once):
            file.write(vectors.stored(places[first : first + at_once]).tobytes())
