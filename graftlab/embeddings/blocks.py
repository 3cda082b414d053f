"""Vectors of many texts written block by block: killed anywhere, the same call goes on, to the same bytes.

The longest texts come first, so that those of a batch are alike in length and memory is seen at once. Each
vector goes to its place in a file of the full size; how many are in it for good stands beside it.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from graftlab.data.vectors import layout
from graftlab.embeddings.texts import Texts
from graftlab.encoders.embedder import Embedder
from graftlab.errors import OUT, ConfigError, DataError, DiskError, in_row
from graftlab.rundir import files
from graftlab.terminal import Pace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: K texts of a block, D numbers of a vector.

VECTORS = "embeddings.safetensors"
RECORD = "embeddings.json"
"""What the vectors are made of, and how many are there for good."""
LOCK = ".embeddings.lock"
BATCHES = 16  # of a block: what a kill may cost
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Written:
    """A file of vectors."""

    path: Path
    num_vectors: int
    width: int
    made: int
    """Vectors that were made by this call; the others were there before."""


def write(
    texts: Texts, model: Embedder, out: Path, batch_size: int = 32, quiet: bool = False
) -> Written:
    """Write the vectors of texts into a folder, or go on with that.

    Raises:
        ConfigError: vectors of other texts, or made otherwise, are there.
        DataError: a text's vector is not finite, or all zero.
        DiskError: the disk is full or gone; the same call goes on from there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with files.alone(out / LOCK):
            return _write(texts, model, out, batch_size, quiet)
    except OSError as error:
        said = f"{out / VECTORS} cannot be written: {error}."
        remedy = (f"{files.trouble(error) or 'Mend that'}, and call the same again: it goes on.",)
        raise DiskError(said, remedy, kind="unwritable", given=str(out)) from error


def _write(texts: Texts, model: Embedder, out: Path, batch_size: int, quiet: bool) -> Written:
    count, path = len(texts.values), out / VECTORS
    job: dict[str, object] = {
        "texts": texts.sha256,
        "count": count,
        "width": model.width,
        "batch_size": batch_size,
        "made_with": model.origin.as_json(),
    }
    done = _done(out, job)
    if path.is_file():
        return Written(path, count, model.width, 0)
    order = sorted(range(count), key=lambda i: (-len(texts.values[i]), i))
    head = layout.header(count, model.width, model.origin)
    pace = Pace("texts", count, done, quiet)
    partial = path.with_name(path.name + files.PARTIAL)
    if not done:  # a record whose vectors are gone would speak of those that are written now
        (out / RECORD).unlink(missing_ok=True)
    with partial.open("r+b" if done else "wb") as file:
        if not done:
            _room(file, head, len(head) + count * model.width * FLOAT)
            files.write_json(out / RECORD, {**job, "done": 0})
        for start in range(done, count, BATCHES * batch_size):
            places = order[start : start + BATCHES * batch_size]
            block_KD = _block(texts, model, places, batch_size)
            _put(file, len(head), places, block_KD)
            files.write_json(out / RECORD, {**job, "done": start + len(places)})
            pace.at(start + len(places))
    partial.replace(path)
    files.sync(out)
    return Written(path, count, model.width, count - done)


def _done(out: Path, job: dict[str, object]) -> int:
    """Return how many vectors are there for good. `Raises:` ConfigError: they are not those of the job."""
    path, record = out / VECTORS, out / RECORD
    partial = path.with_name(path.name + files.PARTIAL)
    there = next((p for p in (path, partial) if p.is_file()), None)
    if there is None:
        return 0
    try:
        kept = files.read_json(record)
        done = int(kept.pop("done"))
    except (OSError, ValueError, KeyError, AttributeError):
        if there == partial:  # killed before its first block
            return 0
        kept, done = {}, 0
    if kept == job:
        return done
    differ = ", ".join(sorted(name for name in job if kept.get(name) != job[name]))
    raise ConfigError(
        f"{there} is there, of other texts or made otherwise: {RECORD} differs in {differ}.",
        ("Choose another with ", OUT, f", or delete {there.name} and {RECORD}."),
        kind="taken",
        given=str(out),
    )


def _room(file: BinaryIO, head: bytes, size: int) -> None:
    """Take all the room at once: a disk that is too full is told before anything is computed."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
    os.pwrite(file.fileno(), head, 0)
    os.fsync(file.fileno())


def _block(
    texts: Texts, model: Embedder, places: Sequence[int], batch_size: int
) -> "NDArray[np.float32]":
    import numpy as np

    block_KD = model.encode([texts.values[place] for place in places], batch_size)
    bad = np.flatnonzero(~np.isfinite(block_KD).all(1) | ~block_KD.any(1))
    if len(bad):
        raise DataError(
            f"its vector is all zero or not finite in {model.origin.precision}.",
            place=in_row(texts.where, places[int(bad[0])]),
            kind="not_finite",
        )
    return block_KD


def _put(file: BinaryIO, head: int, places: Sequence[int], block_KD: "np.ndarray") -> None:
    """Write vectors to their places, neighbours together, and make them durable."""
    width = block_KD.shape[1] * FLOAT
    ordered = sorted(zip(places, range(len(places)), strict=True))
    runs = itertools.groupby(enumerate(ordered), lambda item: item[1][0] - item[0])
    for _, run in runs:
        pairs = [pair for _, pair in run]
        data = block_KD[[row for _, row in pairs]].tobytes()
        at = head + pairs[0][0] * width
        while data:
            put = os.pwrite(file.fileno(), data, at)
            data, at = data[put:], at + put
    os.fsync(file.fileno())
