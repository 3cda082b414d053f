"""What a folder of runs holds, read again only where a file has changed: a page asks every two seconds."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from graftlab.errors import ConfigError
from graftlab.rundir.records import Json
from graftlab.rundir.run import Run
from graftlab.runs import overview, status
from graftlab.runs.status import Row

Line = Mapping[str, Json]


class Entry(NamedTuple):
    """A row of the folder, with where it is below it."""

    at: str
    row: Row


class _Read(NamedTuple):
    length: int
    lines: tuple[Line, ...]


class Folder:
    """A folder of runs, studies and searches."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rows: dict[Path, tuple[object, Row]] = {}
        self._metrics: dict[Path, _Read] = {}

    def find(self, at: str) -> Path:
        """Return the place below the folder that a page asks for.

        Raises:
            ConfigError: it is not below it, or not there.
        """
        parts = PurePosixPath(at).parts
        inside = not at.startswith("/") and ".." not in parts and "\0" not in at
        path = self.root.joinpath(*parts) if inside else self.root
        if not inside or not path.is_dir():
            raise ConfigError(f"{at!r} is not in {self.root}.", kind="missing", given=at)
        return path

    def entries(
        self, at: str = "", where: Sequence[str] = (), sort: str | None = None
    ) -> list[Entry]:
        """Return the rows of the folder, or of a study in it; `where` and `sort` as `overview.rows` has them.

        Raises:
            ConfigError: a condition or a column is not known.
        """
        folder = self.find(at)
        below = overview.below(folder)
        found = overview.rows(folder, where, sort, self.look)
        return [Entry((below / row.run).relative_to(self.root).as_posix(), row) for row in found]

    def look(self, run: Run) -> Row:
        """Return a run's row: what was read before, where nothing of it has changed."""
        files = (run.result,) if run.finished else (run.log, run.config)
        held = None if run.finished else run.held_by()
        stamp = (*map(_stamp, files), held)
        known = self._rows.get(run.path)
        if known is None or known[0] != stamp:
            known = self._rows[run.path] = (stamp, status.of_run(run))
        return known[1]

    def metrics(self, run: Run) -> tuple[Line, ...]:
        """Return the lines of metrics.jsonl that can be read; only what is new is read anew."""
        before = self._metrics.get(run.path, _Read(0, ()))
        try:
            with run.metrics.open("rb") as file:
                if file.seek(0, os.SEEK_END) < before.length:
                    before = _Read(0, ())  # it was cut back to a checkpoint
                file.seek(before.length)
                new = file.read()
        except OSError:
            return ()
        whole = new[: new.rfind(b"\n") + 1]
        lines = (*before.lines, *filter(None, map(_line, whole.splitlines())))
        self._metrics[run.path] = _Read(before.length + len(whole), lines)
        return lines


def _line(text: bytes) -> Line | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
