"""New inputs, each for one of the tasks."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from graftlab.contracts import Row
from graftlab.data import inputs, readers
from graftlab.data.bad_rows import Bad
from graftlab.data.labels import Unusable
from graftlab.data.rows import Numbered
from graftlab.errors import DataError, unknown
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
    bad: list[tuple[int, str]] = []
    kinds = set()
    for index, item in numbered:
        try:
            if isinstance(item, Unusable):
                raise item
            name, own = (task, item) if task else _of(item, list(config.parts))
        except ValueError as reason:
            bad.append((index, str(reason)))
            kinds.add("unusable" if isinstance(reason, Unusable) else "no_task")
        else:
            items[name].append((index, own))
    found: dict[int, Row] = {}
    for name, mine in items.items():
        rows, wrong = _read(config, name, mine)
        bad += wrong
        kinds |= {"unusable"} if wrong else set()
        found |= {index: {**row, "index": index, "task": name} for index, row in rows.items()}
    kind = kinds.pop() if len(kinds) == 1 else "unusable"
    inputs.refuse(Bad(where, sorted(bad)), kind=kind)
    if not found:
        raise DataError(f"{where} has no rows.", kind="empty")
    return [found[index] for index in sorted(found)]


def _read(
    config: Config, name: str, items: Sequence[tuple[int, object]]
) -> tuple[dict[int, Row], list[tuple[int, str]]]:
    """Return the rows of one task by their index, and those that it cannot use, each with the reason.

    Raises:
        DataError: it can use each by itself, and not all of them.
    """
    part = config.parts[name]
    if not items:
        return {}, []
    try:
        rows = part.module.read_inputs(part.config, [item for _, item in items])
        return {index: row for (index, _), row in zip(items, rows, strict=True)}, []
    except DataError as error:
        bad = []
        for index, item in items:  # which one it was: the task has seen but its own rows
            try:
                part.module.read_inputs(part.config, [item])
            except DataError as own:
                said = " ".join(fault.said for fault in own.problems)
                bad.append((index, f"{name}: {said.rstrip('.')}"))
        if not bad:
            raise error
        return {}, bad


def _numbered(source: str | Path | Sequence[object]) -> tuple[str, Iterable[tuple[int, object]]]:
    if not isinstance(source, Path):
        return "input", enumerate([source] if isinstance(source, str) else source)
    if source.suffix.lower() != ".txt":
        return str(source), _readable(readers.read(source))
    rows = _readable(readers.read_text(source, "text"))
    return str(source), (
        (index, row["text"] if isinstance(row, Mapping) else row) for index, row in rows
    )


def _readable(rows: Iterable[Numbered]) -> Iterator[tuple[int, object]]:
    """Yield the rows of a file, and in place of one that cannot be read the reason."""
    for index, row in rows:
        yield index, Unusable(row) if isinstance(row, str) else row


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
