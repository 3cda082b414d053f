"""Task types chosen by their names or groups, and the part of a folder of rows and vectors that has them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from graftlab.data import readers
from graftlab.data.labels import Unusable
from graftlab.data.vectors import store
from graftlab.data.vectors.store import Vectors
from graftlab.errors import Argument, ConfigError, DataError, Place, in_row, unknown
from graftlab.rundir import files
from graftlab.tasks.elm import prompts, rows, tree


class Part(NamedTuple):
    """What is kept of a split."""

    rows: int
    of_rows: int
    vectors: int
    of_vectors: int
    types: Mapping[str, int]
    """Rows kept of each task type."""


def chosen(only: Sequence[str]) -> tuple[str, ...]:
    """Return the task types that are named, alone or by their group, in the catalogue's order.

    Raises:
        ConfigError: there is none of a name.
    """
    known = prompts.task_types()
    groups = sorted({kind.group for kind in known.values()})
    place = Place(argument=Argument("only"))
    for name in only:
        if name in prompts.REMOVED:
            said = f"task type {name!r} asks about two texts, and is not supported."
            raise ConfigError(said, kind="removed", place=place, given=name, allowed=list(known))
        if name not in known and name not in groups:
            said = unknown("task type or group", name, [*known, *groups])
            allowed = [*known, *groups]
            raise ConfigError(said, kind="unknown", place=place, given=name, allowed=allowed)
    return tuple(name for name, kind in known.items() if name in only or kind.group in only)


def take(folder: Path, only: Sequence[str], out: Path) -> dict[str, Part]:
    """Write the rows of chosen task types, and only the vectors that they stand for, into a new folder.

    Vectors keep their order, their number format and their bytes; rows are as they were but for the number
    of their vector. A split of which nothing is chosen is left out.

    Raises:
        ConfigError: there is no such task type, or `out` is taken.
        DataError: a row or a file cannot be used, or nothing of train is chosen.
        DiskError: `out` cannot be written.
    """
    types = chosen(only)
    found = tree.find(folder)
    with files.new_folder(out) as partial:
        parts = {split: _take(one, types, partial / split) for split, one in found.items()}
        if not parts["train"].rows:
            held = ", ".join(sorted(_types(found["train"].rows)))
            said = f"{found['train'].rows} has no row of {', '.join(types)}. It has: {held}."
            raise DataError(said, kind="empty", given=list(only))
    return parts


def _types(path: Path) -> set[str]:
    return {kind for _, row in _rows(path) if (kind := rows.text(row, "task_type"))}


def _rows(path: Path) -> list[tuple[int, dict[str, object]]]:
    """Return the rows of a file with their indices. `Raises:` DataError: one cannot be read."""
    found: list[tuple[int, dict[str, object]]] = []
    for index, row in readers.read(path):
        if isinstance(row, str):
            raise DataError(f"{row}.", place=in_row(str(path), index), kind="unusable")
        found.append((index, row))
    return found


def _take(split: tree.Files, types: Sequence[str], out: Path) -> Part:
    vectors = Vectors(split.vectors)
    every, kept = _rows(split.rows), []
    for index, row in every:
        try:
            if rows.text(row, "task_type") in types:
                kept.append((rows.place_of(row, len(vectors)), row))
        except Unusable as reason:
            place = in_row(str(split.rows), index)
            raise DataError(f"{reason}.", place=place, kind="unusable") from None
    used = sorted({place for place, _ in kept})
    counts = Counter(str(row["task_type"]) for _, row in kept)
    part = Part(len(kept), len(every), len(used), len(vectors), dict(counts))
    if not kept:
        return part
    out.mkdir()
    new = {old: number for number, old in enumerate(used)}
    write_rows(out / tree.ROWS, [_renumbered(row, new[place]) for place, row in kept])
    store.copy(vectors, used, out / tree.VECTORS)
    if (texts := split.vectors.with_name(tree.TEXTS)).is_file():
        of_vector = _rows(texts)
        if len(of_vector) != len(vectors):
            said = f"it has {len(of_vector)} texts, and {split.vectors} {len(vectors)} vectors."
            raise DataError(said, place=Place(str(texts)), kind="conflict")
        write_rows(out / tree.TEXTS, [of_vector[old][1] for old in used])
    return part


def _renumbered(row: Mapping[str, object], place: int) -> dict[str, object]:
    """Return a row with another number of its vector, under whatever name it has it."""
    named = {name: place for name in rows.ALIASES["vector"] if row.get(name) is not None}
    return {**row, **named}


def write_rows(path: Path, found: Sequence[Mapping[str, object]]) -> None:
    """Write rows as JSON Lines."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in found)
