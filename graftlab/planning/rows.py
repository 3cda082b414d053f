"""The rows of a run file as files of their own, from which the same run file reads them again."""

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from graftlab import config, runfile
from graftlab.contracts import Data, Row, read_notes
from graftlab.data import pictures, sources
from graftlab.data.readers import MAX_LINE
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError
from graftlab.planning.preparation import Prepared
from graftlab.rundir import files
from graftlab.runfile import RunFile
from graftlab.runs import material

TESTS = {"test_carved": "train", "validation_is_test": "validation"}
"""Notes that say of what other split test is made."""


def write(prepared: Prepared, source: str, overrides: Sequence[str], out: Path) -> list[str]:
    """Write train, validation and test to a new folder; return what a run file needs to read them again.

    The rows are those of the source, as they stand there, so that the same run file reads them: `source`
    and `overrides` are what `prepared.file` was made of. That they come back equal is checked.

    Raises:
        ConfigError: `out` is not empty, or as `raw_rows` and `write_rows`.
        DiskError: it cannot be written.
    """
    files.refuse_taken(out)
    partial = out.with_name(out.name + files.PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        names = _write_splits(prepared, partial)
        changes = _changes(prepared, names)
        again = [*overrides, f"task.data_dir={json.dumps(str(partial.absolute()))}", *changes]
        _check_same(prepared, runfile.resolve(config.read(source, again)), out)
        if out.exists():
            out.rmdir()
        partial.replace(out)
    except OSError as error:
        raise files.unwritable(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [f"task.data_dir={out}", *changes]


def _write_splits(prepared: Prepared, folder: Path) -> list[str]:
    """Write the rows of the source that became each split; return the names of the files.

    Where there is no test split the validation rows stand last in train: as a file they would be read as
    test.
    """
    rows = raw_rows(prepared)
    if "test" not in rows:
        rows = {"train": [*rows["train"], *rows["validation"]]}
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


def raw_rows(prepared: Prepared) -> dict[str, list[Row]]:
    """Return the rows of the source that each split is made of, in its order; images with their bytes.

    Raises:
        ConfigError: the task is a mixture.
    """
    task, data = prepared.file.task, prepared.data
    if not isinstance(task.config, DataSection):
        raise ConfigError(
            f"rows of the kind {task.name!r} are not written as JSON Lines. A run reads them from where "
            f"they are, or from the cache.",
            kind="not_rows",
        )
    columns = getattr(task.config, "columns", None)
    image = getattr(columns, "image", None)
    named = (image, getattr(columns, "label", "label")) if image else ("", "")
    opened = sources.open_splits(task.config, prepared.file.paths, named)
    wanted = {split: [row["index"] for row in rows] for split, rows in data.splits.items()}
    origins = _origins(data)
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


def _origins(data: Data) -> dict[str, str]:
    """Return for each split the split of the source that its rows come from (`splits.prepare`)."""
    kinds = {note.kind for note in read_notes(data.record.get("notes", ()))}
    return {
        "train": "train",
        "validation": "train" if "validation_carved" in kinds else "validation",
        "test": next((split for kind, split in TESTS.items() if kind in kinds), "test"),
    }


def _changes(prepared: Prepared, names: Sequence[str]) -> list[str]:
    """Return what else in the section would make other rows of what is written."""
    section, data = prepared.file.task.config, prepared.data
    changes = []
    if section.files:
        changes.append("task.files=null")
    given = section.given._asdict()  # how tables are read
    changes += [f"task.{key}=null" for key, value in given.items() if value is not None]
    if section.options:
        changes.append("task.options={}")
    if section.train_data_ratio != 1:
        changes.append("task.train_data_ratio=1.0")
    if section.labels is None and data.problem.kind == "classes":
        changes.append(f"task.labels={json.dumps(data.problem.labels, ensure_ascii=False)}")
    if "test" not in names:
        changes.append(f"task.validation_last={len(data.splits['validation'])}")
    return changes


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
