"""A file of vectors looked through once: its hash, and which of them are not finite or all zero.

What is found is kept beside the file, and holds as long as the file's size, time and header are the same.
"""

import hashlib
import logging
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from graftlab.data.vectors import layout
from graftlab.data.vectors.store import Vectors, widened
from graftlab.rundir import files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("graftlab")

# Shapes: N vectors of a block, D numbers each, K of them that are bad.

BLOCK = 2**24  # bytes that are looked at together
KEPT = ".scan.json"
Ranges = list[list[int]]
"""Numbers as ranges, each its first and the one behind its last."""


@dataclass(frozen=True)
class Scan:
    """What is known of a file's vectors."""

    sha256: str
    """Over the whole file."""
    not_finite: Ranges
    zero: Ranges

    def fault(self, place: int) -> str | None:
        """Return what is wrong with one vector."""
        for found, said in ((self.not_finite, "is not finite"), (self.zero, "is all zero")):
            number = bisect_right(found, [place, float("inf")])
            if number and place < found[number - 1][1]:
                return said
        return None


def of(vectors: Vectors) -> Scan:
    """Return what is known of a file, from the record beside it where that still holds."""
    path, now = vectors.path, _state(vectors)
    kept = path.with_name(path.name + KEPT)
    try:
        record = files.read_json(kept)
        if record.pop("of") == now:
            return Scan(**record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # there is none, or it is not one: the file is looked through
    found = look(vectors)
    try:
        files.write_json(kept, {"of": now, **asdict(found)})
    except OSError as error:
        log.warning(
            "%s cannot be written (%s): %s is looked through every time", kept, error, path.name
        )
    return found


def _state(vectors: Vectors) -> dict[str, object]:
    """Return what tells whether a file is the one that was looked through."""
    told = vectors.path.stat()
    with vectors.path.open("rb") as stream:
        header = hashlib.sha256(stream.read(vectors.layout.offset)).hexdigest()
    return {"bytes": told.st_size, "modified_ns": told.st_mtime_ns, "header": header}


def look(vectors: Vectors) -> Scan:
    """Return what is found when a file is looked through; nothing is kept."""
    import numpy as np

    found, hashed = vectors.layout, hashlib.sha256()
    stored = np.dtype(layout.STORED[found.dtype])
    at_once = max(1, BLOCK // (found.width * stored.itemsize))
    not_finite: Ranges = []
    zero: Ranges = []
    with vectors.path.open("rb") as stream:
        hashed.update(stream.read(found.offset))
        for first in range(0, found.num_vectors, at_once):
            rows = min(at_once, found.num_vectors - first)
            data = stream.read(rows * found.width * stored.itemsize)
            hashed.update(data)
            block_ND = widened(np.frombuffer(data, stored).reshape(rows, found.width), found.dtype)
            largest_N = np.abs(block_ND).max(1)  # NaN where one is
            _extend(not_finite, first, np.flatnonzero(~np.isfinite(largest_N)))
            _extend(zero, first, np.flatnonzero(largest_N == 0))
        hashed.update(stream.read())
    return Scan(hashed.hexdigest(), not_finite, zero)


def _extend(ranges: Ranges, first: int, bad_K: "NDArray[np.int64]") -> None:
    """Add the places that are bad, counted from `first`."""
    for place in (bad_K + first).tolist():
        if ranges and ranges[-1][1] == place:
            ranges[-1][1] += 1
        else:
            ranges.append([place, place + 1])
