"""The vectors that a task's rows stand for, taken where they are: in a file, or with the row."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Row
from graftlab.data.vectors.store import Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: N rows, D numbers of a vector.


class RowVectors:
    """The vectors that rows stand for, from the files that they name; a new row may carry its own."""

    def __init__(self, files: Mapping[str, Vectors], width: int, num_tokens: int) -> None:
        self._files = files
        origin = next(iter(files.values())).origin if files else None
        self.num_tokens = num_tokens
        self.record: dict[str, object] = {
            "width": width,
            "num_tokens": num_tokens,
            "origin": origin.as_json() if origin else None,
        }

    def take(self, rows: Sequence[Row]) -> "NDArray[np.float32]":
        """Return each row's vector (N, D)."""
        import numpy as np

        return np.stack([self._of(row) for row in rows])

    def _of(self, row: Row) -> "NDArray[np.float32]":
        import numpy as np

        if row["file"] is None:
            return np.asarray(row["vector"], dtype=np.float32)
        found: NDArray[np.float32] = self._files[row["file"]].take([row["vector"]])[0]
        return found


def of_inputs(rows: Sequence[Row], num_tokens: int) -> RowVectors:
    """Return the vectors of new rows, of which `file` is a path, or None where they carry theirs."""
    files = {name: Vectors(Path(name)) for name in {row["file"] for row in rows} - {None}}
    first = rows[0]
    width = files[first["file"]].width if first["file"] else len(first["vector"])
    return RowVectors(files, width, num_tokens)
