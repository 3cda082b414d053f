"""What a conversation with a run that reads vectors is about: one vector, or one text."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Row
from graftlab.data.vectors.store import Vectors
from graftlab.errors import Argument, ConfigError, DataError, Place
from graftlab.inference import vectors
from graftlab.inference.vectors import AS_RECORDED, Reading
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE, TEXT, ROW = Argument("embedding"), Argument("text"), Argument("row")


@dataclass(frozen=True)
class About:
    """A vector of a file, or a text that becomes one."""

    file: Path | None = None
    row: int | None = None
    """Which vector of the file, from 0; None: its only one."""
    text: str | None = None
    reading: Reading = AS_RECORDED


def vector_of(run: Run, file: RunFile, about: About | None) -> "NDArray[np.float32] | None":
    """Return the vector that a run is asked about; None for one that reads none.

    Raises:
        ConfigError: there is none, there are two, or the run reads none.
        DataError: it is not like the run's vectors.
        ModelError: the embedding model of a text is not there, or is another.
    """
    about = about or About()
    _check(file, about)
    if not file.task.module.VECTORS:
        return None
    row: Row = {"index": 0, "vector": None, "text": about.text, "file": None}
    if about.file is not None:
        row = {"index": 0, "vector": _place(about.file, about.row), "file": str(about.file)}
    vectors.check(run, [row], about.reading)
    [row] = vectors.embedded(run, [row], about.reading)
    return row["vector"] if about.file is None else _taken(about.file, row["vector"])


def _check(file: RunFile, about: About) -> None:
    """Have a run that reads vectors be given one, and no other run. `Raises:` ConfigError."""
    given = [(name, value) for name, value in ((FILE, about.file), (TEXT, about.text)) if value]
    if not file.task.module.VECTORS:
        vectors.refuse_idle(file, about.reading)
        for name, value in given:
            said = f"it is for runs whose task reads vectors; this run's kind is {file.task.name}."
            place = Place(argument=Argument(name.name, value))
            raise ConfigError(said, ("Leave it out.",), place=place, kind="conflict")
    elif len(given) != 1:
        which = "two are given" if given else "none is given"
        said = f"this run is asked about one vector, and {which}."
        remedy = ("Give ", FILE, " with ", ROW, ", or ", TEXT, ".")
        kind = "conflict" if given else "missing"
        raise ConfigError(said, remedy, place=Place(argument=FILE), kind=kind)
    if about.row is not None and about.file is None:
        said = "it says which vector of a file."
        place = Place(argument=Argument(ROW.name, about.row))
        raise ConfigError(said, ("Give ", FILE, " too, or leave it out."), place=place, kind="idle")


def _place(path: Path, row: int | None) -> int:
    """Return which vector of a file is meant. `Raises:` ConfigError: it is not there, or not said."""
    count = len(Vectors(path))
    if row is None and count > 1:
        said = f"which of the {count} vectors of {path}?"
        remedy = ("Say it with ", ROW, f", 0 to {count - 1}.")
        raise ConfigError(said, remedy, place=Place(argument=ROW), kind="missing")
    found = row or 0
    if not 0 <= found < count:
        said = f"{path} has the vectors 0 to {count - 1}."
        place = Place(argument=Argument(ROW.name, found))
        raise ConfigError(
            said, place=place, kind="not_allowed", given=found, allowed=f"0 to {count - 1}"
        )
    return found


def _taken(path: Path, place: int) -> "NDArray[np.float32]":
    """Return a vector of a file. `Raises:` DataError: it is not finite, or all zero."""
    found = Vectors(path).take([place])[0]
    if (fault := vectors.fault(found)) is not None:
        raise DataError(f"vector {place} {fault}.", place=Place(str(path)), kind="not_finite")
    return found
