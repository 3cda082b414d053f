"""The rows of a run file as files of their own, from which the same run file reads them again."""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab import config, runfile
from graftlab.config.parser import parse_value
from graftlab.contracts import Data, Row
from graftlab.data import pictures, sources, splits
from graftlab.data.readers import MAX_LINE
from graftlab.data.section import DataSection
from graftlab.errors import NOWHERE, ConfigError
from graftlab.planning.preparation import Prepared, of_tasks
from graftlab.rundir import files
from graftlab.runfile import RunFile
from graftlab.runs import material

PLACES = ("data_dir", "files", "hub", "source")
"""Keys of a task that say where its rows are."""


def write(prepared: Prepared, source: str, overrides: Sequence[str], out: Path) -> list[str]:
    """Write train, validation and test to a new folder, of a mixture to a folder in it for each task; return
    what a run file needs to read them again.

    The rows are those of the source, as they stand there, so that the same run file reads them: `source`
    and `overrides` are what `prepared.file` was made of. That they come back equal is checked.

    Raises:
        ConfigError: `out` is not empty, or as `raw_rows` and `write_rows`.
        DiskError: it cannot be written.
    """
    parts = of_tasks(prepared.file, prepared.data)
    with files.new_folder(out) as partial:
        held = {name: _write_splits(*part, partial / name) for name, part in parts.items()}
        use = list(_changes(parts, held, out))
        again = _changes(parts, held, partial)
        _check_same(prepared, runfile.resolve(config.read(source, [*overrides, *again])), out)
    return use


def _write_splits(file: RunFile, data: Data, folder: Path) -> list[str]:
    """Write the rows of the source that became each split; return the names of the files.

    Where there is no test split the validation rows stand last in train: as a file they would be read as
    test.
    """
    rows = raw_rows(file, data)
    if "test" not in rows:
        rows = {"train": [*rows["train"], *rows["validation"]]}
    folder.mkdir(exist_ok=True)
    for split, found in rows.items():
        write_rows(folder / f"{split}.jsonl.gz", found)
    return list(rows)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as packed JSON Lines: the same bytes for the same rows.

    Raises:
        ConfigError: a row is longer than a line that is read.
    """
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, default=str)  # a date is written as text
            if len(written := line.encode()) > MAX_LINE:
                raise ConfigError(
                    f"a row for {path.name} has {len(written):,} bytes, more than the {MAX_LINE:,} of a line "
                    f"that is read. Make its text or its image smaller.",
                    kind="too_long",
                )
            packed.write(written + b"\n")
    files.sync(path)


def raw_rows(file: RunFile, data: Data) -> dict[str, list[Row]]:
    """Return the rows of the source that each split is made of, in its order; images with their bytes.

    Raises:
        ConfigError: the task's rows stand in files of another form.
    """
    task = file.task
    if not isinstance(task.config, DataSection):
        raise ConfigError(
            f"rows of the kind {task.name!r} are not written as JSON Lines. A run reads them from where "
            f"they are, or from the cache.",
            kind="not_rows",
        )
    columns = getattr(task.config, "columns", None)
    image = getattr(columns, "image", None)
    label = getattr(columns, "label", "label") if image else ""
    named = (image or task.config.first_column, label)
    opened = sources.open_splits(task.config, file.paths, named)
    wanted = {split: [row["index"] for row in rows] for split, rows in data.splits.items()}
    origins = splits.origins(data.record)
    found: dict[str, dict[int, Row]] = {}
    for split, source in opened.items():
        needed = {i for ours, theirs in origins.items() if theirs == split for i in wanted[ours]}
        rows = ((i, row) for i, row in source.rows if i in needed and not isinstance(row, str))
        found[split] = dict(rows) if needed else {}
    return {
        split: [_whole(found[origins[split]][row["index"]], row, image) for row in rows]
        for split, rows in data.splits.items()
        if len(rows)
    }


def _whole(raw: Row, row: Row, image: str | None) -> Row:
    """Return a row of the source that needs no file beside it."""
    return {**raw, image: pictures.cell(row["image"])} if image else raw


def _changes(
    parts: Mapping[str, tuple[RunFile, Data]], held: Mapping[str, Sequence[str]], out: Path
) -> Iterator[str]:
    """Yield what a run file needs to read the rows from `out`; `held` are the splits that each task has."""
    yield f"task.data_dir={_spelled(out)}"
    for number, (name, (file, data)) in enumerate(parts.items()):
        above = f"task.tasks.{number}" if name else "task"
        if name and _has_place(file, number):
            yield f"{above}.data_dir={_spelled(out / name)}"
        for key, value in _of_section(file, data, held[name]):
            yield f"{above}.{key}={json.dumps(value, ensure_ascii=False)}"


def _spelled(path: Path) -> str:
    """Return a path as the value of an override: in quotes where YAML would read something else."""
    text = str(path)
    try:
        plain = parse_value(text, NOWHERE) == text
    except ConfigError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def _has_place(file: RunFile, number: int) -> bool:
    """Return whether a mixture's task says itself where its rows are, or `each` does."""
    assert file.document is not None
    given = file.document.values["task"]
    own = {**(given.get("each") or {}), **given["tasks"][number]}
    return any(own.get(key) is not None for key in PLACES)


def _of_section(file: RunFile, data: Data, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the section that would make other rows of what is written, and their values."""
    section = file.task.config
    if section.files:
        yield "files", None
    # how tables are read
    yield from ((key, None) for key, value in section.given._asdict().items() if value is not None)
    if section.options:
        yield "options", {}
    if section.train_data_ratio != 1:
        yield "train_data_ratio", 1.0
    if section.labels is None and data.problem.kind == "classes":
        yield "labels", data.problem.labels
    if "test" not in names:
        yield "validation_last", len(data.splits["validation"])


def _check_same(prepared: Prepared, file: RunFile, out: Path) -> None:
    """Read the rows again; what differs could not be used in place of the source."""
    again = material.read(file)
    for split, rows in prepared.data.splits.items():
        mine, others = _without_index(rows), _without_index(again.splits[split])
        assert mine == others, f"{split} of {out} is not read back as it was"


def _without_index(rows: Sequence[Row]) -> list[Row]:
    found = [{key: value for key, value in row.items() if key != "index"} for row in rows]
    return [
        {**row, "image": pictures.content(row["image"])} if "image" in row else row for row in found
    ]
