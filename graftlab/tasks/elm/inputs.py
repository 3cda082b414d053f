"""New inputs: vectors or texts that become vectors, each with what is asked about it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Row
from graftlab.data import inputs, readers
from graftlab.data.bad_rows import Bad
from graftlab.data.labels import Unusable
from graftlab.data.rows import Numbered
from graftlab.data.vectors import layout, scan
from graftlab.data.vectors.store import Vectors
from graftlab.errors import Argument, ConfigError, DataError, Place, Words
from graftlab.tasks.elm import prompts, tree
from graftlab.tasks.elm.fields import Config
from graftlab.tasks.elm.rows import ALIASES, place_of, said, text
from graftlab.tasks.generation import turns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: N vectors, D numbers of a vector.

VECTOR, TEXT, MESSAGES = "vector", "text", "messages"
"""Columns of a new row: its vector, or the text that is to become one; and a conversation about it."""


ASK: Words = ("Add one, or ask of all inputs: ", Argument("task"), " or ", Argument("query"), ".")


class Unasked(Unusable):
    """It is not said what is asked about an input."""


@dataclass(frozen=True)
class Asked:
    """What is asked about inputs that do not say it themselves: one of these, or nothing."""

    task_type: str | None = None
    query: str | None = None


def read(
    config: Config,
    source: str | Path | Sequence[object],
    asked: Asked = Asked(),
) -> list[Row]:
    """Return new inputs as rows: `index`, `fields` (the prompt) or `messages`, `vector` and `file`.

    `source` is a text; a list of texts, of vectors, or of dicts with `vector` or `text`; or the Path of a
    file of vectors, of text lines, or of rows, which may also name their vectors as those of a task do, in
    the file beside them. A row of a text has its `text`, and None as `vector`.

    Raises:
        ConfigError: what is asked is no task type, or two things, or none that the run knows.
        DataError: an input cannot be used.
    """
    _check(config, asked)
    where, numbered, vectors = _opened(source)
    found: list[Row] = []
    bad: list[tuple[int, str]] = []
    remedies: tuple[Words, ...] = ()
    looked = None if vectors is None else scan.look(vectors)
    for index, item in numbered:
        try:
            if isinstance(item, str):
                raise Unusable(item)
            row: Row = {"index": index, **_asked(item, config, asked), "label": None}
            row |= _subject(item, vectors)
            if looked and row["file"] and (fault := looked.fault(row["vector"])) is not None:
                raise Unusable(f"vector {row['vector']} {fault}")
            _check_alike(row, found[:1])
            found.append(row)
        except Unusable as reason:
            remedies = (ASK,) if isinstance(reason, Unasked) else remedies
            bad.append((index, str(reason)))
    inputs.refuse(Bad(where, bad), *remedies)
    if not found:
        raise DataError(f"{where} has no rows.", kind="empty")
    return found


def _check(config: Config, asked: Asked) -> None:
    """Refuse a task type that there is not, or that goes with nothing. `Raises:` ConfigError."""
    kind = asked.task_type
    if kind is None:
        return
    place = Place(argument=Argument("task", kind))
    try:
        prompts.named(kind)
    except Unusable as reason:
        known = list(prompts.task_types())
        raise ConfigError(
            f"{reason}.", place=place, kind="unknown", given=kind, allowed=known
        ) from None
    query = Argument("query")
    if asked.query is not None:
        said = "a task type and words of one's own are two questions."
        raise ConfigError(said, ("Leave it out, or ", query, "."), place=place, kind="conflict")
    if config.prompts == "rows":
        said = "this run was asked in its rows' own words (task.prompts: rows)."
        raise ConfigError(said, ("Give the words: ", query, "."), place=place, kind="conflict")


Opened = tuple[str, Iterable[tuple[int, Mapping[str, object] | str]], Vectors | None]
"""What is read, its items with their numbers, and the vectors that they name."""


def _opened(source: str | Path | Sequence[object]) -> Opened:
    if isinstance(source, Path):
        return _file(source)
    items = [source] if isinstance(source, str) else source
    return "input", ((index, _item(item)) for index, item in enumerate(items)), None


def _file(path: Path) -> Opened:
    if path.suffix.lower() in layout.SUFFIXES:
        vectors = Vectors(path)
        named = ALIASES[VECTOR][0]
        return str(path), ((place, {named: place}) for place in range(len(vectors))), vectors
    if path.is_dir():
        raise DataError(
            f"{path} is a folder: name a file of vectors ({', '.join(layout.SUFFIXES)}), texts or rows.",
            kind="not_allowed",
        )
    rows = list(readers.read(path, (TEXT, "")))
    names = any(isinstance(row, dict) and VECTOR not in row and _names_one(row) for _, row in rows)
    beside = Vectors(tree.beside(path)) if names else None
    return str(path), (_line(path, row) for row in rows), beside


def _line(path: Path, row: Numbered) -> Numbered:
    """Return a row; a line of text may be one as JSON."""
    index, item = row
    if readers.suffix_of(path) != ".txt" or isinstance(item, str):
        return row
    return index, dict(_item(item[TEXT]))


def _names_one(row: Mapping[str, object]) -> bool:
    return any(row.get(name) is not None for name in ALIASES[VECTOR])


def _item(item: object) -> Mapping[str, object]:
    """Return an item of a list as a row: a text, which may be an object as JSON, or a vector."""
    if isinstance(item, Mapping):
        return item
    if not isinstance(item, str):
        return {VECTOR: item}
    if item.lstrip().startswith("{"):
        try:
            found = json.loads(item)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and {VECTOR, TEXT} & set(found):
            return found
    return {TEXT: item}


def _asked(row: Mapping[str, object], config: Config, asked: Asked) -> dict[str, object]:
    """Return what is asked about a row: by itself, or else by `asked`. `Raises:` Unusable."""
    if row.get(MESSAGES) is not None:
        if config.prompt_format != "chat":
            raise Unusable("it has messages, and task.prompt_format is not chat")
        return {MESSAGES: turns.messages_of(row[MESSAGES], MESSAGES), "task_type": None}
    kind, query = text(row, "task_type"), text(row, "query")
    if config.prompts == "rows":
        kind, query = None, query or asked.query
        if query is None:
            raise Unusable("it has no query, and task.prompts is rows")
    elif kind is None and query is None:
        kind, query = asked.task_type, asked.query
    if kind is not None:
        prompt = prompts.named(kind).prompt(text(row, "domain"))
        return {"fields": {"prompt": prompt}, "task_type": kind}
    if query is None:
        raise Unasked("it has neither task_type nor query")
    return {"fields": {"prompt": query}, "task_type": None}


def _subject(row: Mapping[str, object], vectors: Vectors | None) -> dict[str, object]:
    """Return what a row is about: a vector of its own or of a file, or a text. `Raises:` Unusable."""
    given = [name for name in (VECTOR, TEXT) if row.get(name) is not None]
    if VECTOR in given:
        return {VECTOR: _checked(row[VECTOR]), "file": None}
    if vectors is not None and said(row, VECTOR) is not None:
        return {VECTOR: place_of(row, len(vectors)), "file": str(vectors.path)}
    if not given:
        raise Unusable(f"it has no {VECTOR}, no {TEXT} and no {' or '.join(ALIASES[VECTOR])}")
    found = row[TEXT]
    if not isinstance(found, str) or not found.strip():
        raise Unusable(f"its text {found!r:.60} is none")
    return {VECTOR: None, TEXT: found, "file": None}


def _check_alike(row: Row, first: Sequence[Row]) -> None:
    """Have all rows be conversations or none, and their vectors be of one width. `Raises:` Unusable."""
    for other in first:
        if (MESSAGES in row) != (MESSAGES in other):
            raise Unusable(f"some inputs have {MESSAGES}, and some have none")
        if row["file"] or other["file"] or row[VECTOR] is None or other[VECTOR] is None:
            return
        own, wanted = len(row[VECTOR]), len(other[VECTOR])
        if own != wanted:
            raise Unusable(f"its vector has {own} numbers, and the first {wanted}")


def _checked(vector: object) -> "NDArray[np.float32]":
    """Return a vector as float32. `Raises:` Unusable: it is none, not finite, or all zero."""
    import numpy as np

    try:
        found = np.asarray(vector, dtype=np.float32)
    except (ValueError, TypeError):
        raise Unusable("its vector is no list of numbers") from None
    if found.ndim != 1 or not len(found):
        raise Unusable(f"its vector has the shape {found.shape}, and one row of numbers is wanted")
    if not np.isfinite(found).all():
        raise Unusable("its vector is not finite")
    if not found.any():
        raise Unusable("its vector is all zero")
    return found
