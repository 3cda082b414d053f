"""How a run stands, read from a file or two of it: finished, running, stopped, or failed and why."""

import itertools
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from graftlab.config.reread import reread
from graftlab.errors import CheckpointError, ConfigError
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run

Status = Literal["waiting", "running", "stopped", "failed", "finished"]
RECORD = re.compile(rb"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} ([A-Z]+) [\w.]+: (.*)$", re.M)
TAIL = 65_536  # bytes of a log in which its last record begins, a traceback's length before the end
STOPPED = "Stopped: "
BUG = "a bug in graftlab"
"""What the log says of a run that ended by an error that nobody foresaw."""
LONGEST_CAUSE = 300


@dataclass(frozen=True)
class Row:
    """A run, a study, a search or a selection in a table: what is not known is None."""

    run: str
    """The name of its folder."""
    kind: Literal["run", "study", "search", "selection"]
    status: Status
    score: float | None = None
    """Of the first metric; of test, or of validation where there is no test split."""
    standard_error: float | None = None
    metric: str | None = None
    split: str | None = None
    method: str | None = None
    task: str | None = None
    backbone: str | None = None
    seed: int | None = None
    trained: int | None = None
    """How many parameters."""
    date: str | None = None
    """When it began."""
    seconds: float | None = None
    """Of training."""
    cause: str | None = None
    """Why it has failed; of a study or a search, how its runs have ended."""


def of_run(run: Run) -> Row:
    """Return a run's row; a file that is damaged is the cause of a failure."""
    name, date = run.path.name, _began(run)
    if not run.finished:
        status, cause = _unfinished(run)
        return Row(name, "run", status, date=date, cause=cause, **_config(run))
    try:
        return _finished(name, run.read_result(), date)
    except CheckpointError as error:
        return Row(name, "run", "failed", date=date, cause=str(error), **_config(run))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = f"{run.result} cannot be read: {type(error).__name__}: {error}"
        return Row(name, "run", "failed", date=date, cause=said, **_config(run))


def _finished(name: str, result: Result, date: str | None) -> Row:
    scored = result.get("metrics", {})
    split = next((split for split in ("test", "validation") if scored.get(split)), None)
    metric = next(iter(scored[split])) if split else None
    score = scored[split][metric] if split and metric else None
    return Row(
        run=name,
        kind="run",
        status="finished",
        score=score["value"] if score else None,
        standard_error=score.get("standard_error") if score else None,
        metric=metric,
        split=split,
        method=result.get("method"),
        task=result.get("task"),
        backbone=result.get("backbone"),
        seed=result.get("seed"),
        trained=result["parameters"]["trainable"] if "parameters" in result else None,
        date=date,
        seconds=result["seconds"]["training"] if "seconds" in result else None,
    )


def named(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return method, task, backbone and seed as a resolved run file has them, named as result.json does."""

    def part(section: str, *keys: str) -> str | None:
        values = config.get(section)
        given = values if isinstance(values, Mapping) else {}
        return next((str(given[key]) for key in keys if given.get(key)), None)

    return {
        "method": part("method", "name"),
        "task": part("task", "name", "kind"),
        "backbone": part("backbone", "model", "kind"),
        "seed": config.get("seed"),
    }


def _config(run: Run) -> dict[str, Any]:
    try:
        return named(reread(run.config))
    except ConfigError:
        return {}  # said by whatever goes on with it


def _unfinished(run: Run) -> tuple[Status, str | None]:
    if run.held_by():
        return "running", None
    last = _last_record(run)
    if last is None:
        return "stopped", None
    level, said = last
    if level != "ERROR" or said.startswith(STOPPED):
        return "stopped", None
    return "failed", said[:LONGEST_CAUSE]


def _began(run: Run) -> str | None:
    """Return when a run began: its log says so; where there is none, the date of its files does."""
    try:
        with run.log.open("rb") as file:
            first = RECORD.match(file.readline().rstrip(b"\n"))
        if first:
            return first[1].decode()
        began = run.config.stat().st_mtime
    except OSError:
        try:
            began = run.config.stat().st_mtime
        except OSError:
            return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began))


def _last_record(run: Run) -> tuple[str, str] | None:
    """Return level and first words of the last record of a run's log."""
    try:
        with run.log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            text = file.read()
    except OSError:
        return None
    records = list(RECORD.finditer(text))
    if not records:
        return None
    level, said = (part.decode("utf-8", "replace") for part in records[-1].groups()[1:])
    below = text[records[-1].end() :].decode("utf-8", "replace").split()
    if said.endswith(":"):  # what it is, stands on the lines below
        said = " ".join([said, *itertools.takewhile(lambda word: word != "Traceback", below)])
    elif said.startswith(BUG):  # which one, the traceback's last line says
        said = text.decode("utf-8", "replace").rstrip().rpartition("\n")[2]
    return level, said
