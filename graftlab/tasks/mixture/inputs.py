"""New inputs, each for one of the tasks."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from graftlab.contracts import Row
from graftlab.data import readers
from graftlab.data.rows import Numbered
from graftlab.errors import DataError, in_row, unknown
from graftlab.tasks.mixture.section import Config

TASK = "task"


def read_inputs(
    config: Config, source: str | Path | Sequence[object], task: str | None = None
) -> list[Row]:
    """Return new inputs as rows without labels, as `read_inputs` of their own kinds does.

    Of a dict (a line of JSONL) the key `task` names its task, of a text what it begins with: `NAME: text`.
    Where `task` is given, all inputs are of that one.

    Raises:
        DataError: a row names no task, or its task cannot use it.
    """
    if task is not None and task not in config.parts:
        raise DataError(unknown("task", task, list(config.parts)))
    where, numbered = _numbered(source)
    items: dict[str, list[tuple[int, object]]] = {name: [] for name in config.parts}
    for index, item in numbered:
        try:
            name, own = (task, item) if task else _of(item, list(config.parts))
        except ValueError as error:
            place = in_row(where, index)
            raise DataError(f"{error}.", place=place, kind="no_task") from None
        items[name].append((index, own))
    found: dict[int, Row] = {}
    for name, mine in items.items():
        for (index, _), row in zip(mine, _read(config, name, mine, where), strict=True):
            found[index] = {**row, "index": index, "task": name}
    if not found:
        raise DataError(f"{where} has no rows.", kind="empty")
    return [found[index] for index in sorted(found)]


def _read(config: Config, name: str, items: Sequence[tuple[int, object]], where: str) -> list[Row]:
    """Return the rows of one task. `Raises:` DataError, with the place of the row."""
    if not items:
        return []
    part = config.parts[name]
    try:
        rows: list[Row] = part.module.read_inputs(part.config, [item for _, item in items])
        return rows
    except DataError as error:
        for index, item in items:  # which one it was: the task has seen but its own rows
            try:
                part.module.read_inputs(part.config, [item])
            except DataError as own:
                place = replace(in_row(where, index), key=("tasks", name))
                faults = [replace(f, said=f"{name}: {f.said}", place=place) for f in own.problems]
                raise DataError(faults) from None
        raise error


def _numbered(source: str | Path | Sequence[object]) -> tuple[str, Iterable[tuple[int, object]]]:
    if not isinstance(source, Path):
        return "input", enumerate([source] if isinstance(source, str) else source)
    if source.suffix.lower() != ".txt":
        return str(source), _readable(source, readers.read(source))
    rows = _readable(source, readers.read_text(source, "text"))
    return str(source), ((index, row["text"]) for index, row in rows)


def _readable(path: Path, rows: Iterable[Numbered]) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the rows of a file. `Raises:` DataError: one cannot be read."""
    for index, row in rows:
        if isinstance(row, str):
            raise DataError(f"{row}.", place=in_row(str(path), index), kind="unusable")
        yield index, row


def _of(item: object, names: Sequence[str]) -> tuple[str, object]:
    """Return the task that an item names, and the item without the name.

    Raises:
        ValueError: it names none.
    """
    known = ", ".join(names)
    if isinstance(item, str) and item.lstrip().startswith("{"):
        try:
            item = json.loads(item)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not a JSON object: {error}") from None
    if isinstance(item, Mapping):
        if item.get(TASK) not in names:
            given = f"is {item[TASK]!r}" if TASK in item else "is missing"
            raise ValueError(f"the key {TASK!r} {given}; the tasks are {known}")
        return item[TASK], {key: value for key, value in item.items() if key != TASK}
    if isinstance(item, str):
        name, colon, text = item.partition(":")
        if colon and name.strip() in names:
            return name.strip(), text.lstrip()
    raise ValueError(f"it does not say its task: begin a text with 'NAME: ', NAME one of {known}")
