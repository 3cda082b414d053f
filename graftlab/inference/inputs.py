"""What a run is asked: inputs read, and what it cannot answer refused before anything is loaded."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab import runfile
from graftlab.contracts import NOTED, Note, Row
from graftlab.data.bad_rows import Bad
from graftlab.data.doctor import SHOWN
from graftlab.data.inputs import refuse
from graftlab.data.sources import SPLITS
from graftlab.data.splits import no_split
from graftlab.errors import Argument, ConfigError, DataError, Place, unknown
from graftlab.inference import vectors
from graftlab.inference.settings import settings
from graftlab.inference.vectors import AS_RECORDED, Reading
from graftlab.rundir import run as rundir
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile
from graftlab.runs import kept_step

log = logging.getLogger("graftlab")


@dataclass(frozen=True)
class Inputs:
    """What a run is asked."""

    source: "str | Path | Sequence[object]"
    task: str | None = None
    """Of a mixture, the task of inputs that do not name theirs; of vectors, their task type."""
    reading: Reading = AS_RECORDED


def check(
    path: Path,
    raw: bool,
    changed: Mapping[str, object],
    step: int | None = None,
    inputs: Inputs | None = None,
) -> None:
    """Refuse settings that a run's model cannot write with, and inputs that it cannot read, before anything
    is loaded.

    Raises:
        ConfigError: `path` is no run, or does not keep the step; its task writes no texts, or a value is not
            allowed.
        DataError: an input cannot be read.
    """
    run = rundir.find(path) if step is None else kept_step.find(path, step)
    file = runfile.of_run(run)
    section = settings(file, raw, changed)
    if inputs is not None:
        read(run, file, section, inputs)


def check_split(path: Path, split: str, step: int | None = None) -> None:
    """Refuse a split that no task has, and files or columns of a run's task that are gone, before anything is
    loaded.

    Raises:
        ConfigError: `path` is no run, or does not keep the step.
        DataError: there is no such split, or the data cannot be read.
    """
    run = rundir.find(path) if step is None else kept_step.find(path, step)
    if split not in SPLITS:
        raise no_split(split, SPLITS)
    file = runfile.of_run(run)
    if wrong := file.task.module.check(file.task.config):
        raise DataError([fault.within("task") for fault in wrong])


def read(run: Run, file: RunFile, section: Any, inputs: Inputs) -> list[Row]:
    """Return inputs as rows of a run's task, or of the one of its mixture that is named. Of a task that reads
    vectors, those of texts have none yet.

    Raises:
        ConfigError: there is no such task, or nothing to which what is said of vectors applies.
        DataError: an input cannot be read, or its vector is not like the run's.
    """
    module, task, reading = file.task.module, inputs.task, inputs.reading
    vectors.refuse_idle(file, reading)
    if not module.VECTORS:
        bound_for = {"task": _part_named(file, task)} if task else {}
        rows = module.read_inputs(section, inputs.source, **bound_for)
        where = str(inputs.source) if isinstance(inputs.source, Path) else "input"
        _tell_empty(rows, where, file)
        return rows
    rows = module.read_inputs(section, inputs.source, task=task, query=reading.query)
    vectors.check(run, rows, reading)
    return rows


def _tell_empty(rows: Sequence[Row], where: str, file: RunFile) -> None:
    """Say which inputs have an empty text, which a model answers all the same.

    Raises:
        DataError: the run's task leaves out or refuses such rows.
    """
    empty = [row for row in rows if any(not text.strip() for text in _texts(row))]
    parts = {"": file.task, **file.task.parts}
    refused = [
        (row["index"], f"an empty text, and the run's task has empty: {said}")
        for row in empty
        if (said := getattr(parts[row.get("task", "")].config, "empty", None))
    ]
    refuse(Bad(where, refused))
    if empty:
        shown = tuple(row["index"] + 1 for row in empty[:SHOWN])
        note = Note.of("inputs_empty", where=where, count=len(empty), rows=shown)
        log.warning("%s", note, extra=NOTED)


def _texts(row: Row) -> list[str]:
    """Return the texts of a row that a model is given."""
    own = [row.get(name) for name in ("text", "pair", "question")]
    return [text for text in (*own, *(row.get("fields") or {}).values()) if isinstance(text, str)]


def _part_named(file: RunFile, name: str) -> str:
    """Return the name of one of a mixture's tasks. `Raises:` ConfigError: there is none of that name."""
    place = Place(argument=Argument("task", name))
    if not file.task.parts:
        said = f"this run's task is one, {file.task.name}. Leave it out."
        raise ConfigError(said, place=place, kind="conflict", given=name)
    if name not in file.task.parts:
        known = list(file.task.parts)
        said = unknown("task", name, known)
        raise ConfigError(said, place=place, kind="unknown", given=name, allowed=known)
    return name
