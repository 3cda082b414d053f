"""Inputs of a run that reads vectors: texts become vectors by the model that its own were made with."""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from graftlab.contracts import NOTED, Row
from graftlab.data.vectors.origin import Origin, differences
from graftlab.data.vectors.store import Vectors
from graftlab.encoders import embedder
from graftlab.encoders.embedder import EMBEDDER, OTHER, Embedder
from graftlab.errors import Argument, ConfigError, DataError, ModelError, Place
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("graftlab")

BATCH = 32  # texts at a time, as `graftlab embed` has it


@dataclass(frozen=True)
class Reading:
    """How inputs of a run that reads vectors are read, beside what the run has recorded."""

    query: str | None = None
    """Asked, in one's own words, about inputs that say nothing themselves."""
    embedder: str | None = None
    """Where the embedding model of texts is, unless it is where it was."""
    other_embedder: bool = False
    """Vectors may be of another embedding model than the run's."""
    pooling: str | None = None
    """How tokens become one vector, where neither the run's vectors nor the embedding model say it."""

    def given(self) -> dict[str, object]:
        """Return what is said here, by its name."""
        return {name: value for name, value in vars(self).items() if value}


AS_RECORDED = Reading()


def refuse_idle(file: RunFile, reading: Reading) -> None:
    """Refuse what is only for runs that read vectors. `Raises:` ConfigError."""
    if not file.task.module.VECTORS and (given := reading.given()):
        name, value = next(iter(given.items()))
        raise ConfigError(
            f"it is for runs whose task reads vectors; this run's kind is {file.task.name}.",
            ("Leave it out.",),
            place=Place(argument=Argument(name, value)),
            kind="conflict",
        )


def check(run: Run, rows: Sequence[Row], reading: Reading) -> None:
    """Refuse rows whose vectors are not like those of the run, and texts that cannot become such.

    Raises:
        DataError: vectors are of another width, or were made otherwise.
        ConfigError: it is not known what model texts are to go through.
    """
    about = _recorded(run)
    origin = _origin(about)
    for row in (row for row in rows if row["vector"] is not None and not row["file"]):
        _check_width(run, len(row["vector"]), about, f"input {row['index']}")
    for name in {row["file"] for row in rows} - {None}:
        vectors = Vectors(Path(name))
        _check_width(run, vectors.width, about, name)
        if reading.other_embedder or origin is None or vectors.origin is None:
            continue
        if odd := differences(origin, vectors.origin):
            said = ", ".join(f"{key} {one!r}, there {two!r}" for key, (one, two) in odd.items())
            raise DataError(
                f"the vectors of {name} were made otherwise than those of {run.path}: {said}.",
                ("Embed the texts as the run's were, or take these all the same with ", OTHER, "."),
                kind="other_embedder",
                given=name,
            )
    if all(row["vector"] is not None for row in rows):
        _refuse_idle_embedder(reading)
    elif origin is None:
        _check_unknown(run, reading)
    elif reading.pooling is not None:
        _refuse(
            f"the vectors of {run.path} say how they were pooled: {origin.pooling}.",
            "pooling",
            reading,
        )


def embedded(run: Run, rows: Sequence[Row], reading: Reading) -> list[Row]:
    """Return the rows, those of texts with their vectors.

    Raises:
        ConfigError, ModelError, Refused: as `embedder.reopen`.
        ModelError: the vectors are of another width than the run's.
        DataError: a text's vector is not finite, or all zero.
    """
    texts = [str(row["text"]) for row in rows if row["vector"] is None]
    if not texts:
        return list(rows)
    about = _recorded(run)
    model = _embedder(_origin(about), reading)
    if model.width != about["width"]:
        raise ModelError(
            f"{model.origin.model} makes vectors of {model.width} numbers, and {run.path} reads "
            f"{about['width']}.",
            kind="other_width",
        )
    made = iter(model.encode(texts, BATCH))
    found = [row if row["vector"] is not None else {**row, "vector": next(made)} for row in rows]
    for row in found:
        if "text" in row and (odd := fault(row["vector"])):
            raise DataError(f"the vector of input {row['index']} {odd}.", kind="not_finite")
    return found


def fault(vector: "NDArray[np.float32]") -> str | None:
    """Return what is wrong with a vector."""
    import numpy as np

    if not np.isfinite(vector).all():
        return "is not finite"
    return None if vector.any() else "is all zero"


@functools.lru_cache(maxsize=1)
def _opened(origin: str | None, model: str | None, other: bool, pooling: str | None) -> Embedder:
    """Return the model that texts go through; the last one is kept, for the next call."""
    if origin is None:
        assert model is not None, "refused before"
        found = embedder.load(embedder.Request(model, pooling=pooling))
    else:
        found = embedder.reopen(Origin.from_json(json.loads(origin)), model, other)
    for note in found.notes:
        log.warning("%s", note, extra=NOTED)
    return found


def _embedder(origin: Origin | None, reading: Reading) -> Embedder:
    said = None if origin is None else origin.as_text()
    return _opened(said, reading.embedder, reading.other_embedder, reading.pooling)


def _recorded(run: Run) -> Mapping[str, Any]:
    """Return what a run has recorded of its vectors: `width`, `num_tokens` and `origin`."""
    found: Mapping[str, Any] = run.read_environment()["data"]["vectors"]
    return found


def _origin(about: Mapping[str, Any]) -> Origin | None:
    return Origin.from_json(about["origin"]) if about["origin"] else None


def _check_width(run: Run, width: int, about: Mapping[str, Any], where: str) -> None:
    if width != about["width"]:
        raise DataError(
            f"{where} has a vector of {width} numbers, and {run.path} reads {about['width']}: it is of "
            f"another embedding model, or of another run.",
            kind="other_width",
            given=width,
            allowed=about["width"],
        )


def _refuse_idle_embedder(reading: Reading) -> None:
    """Refuse to name a model that nothing goes through. `Raises:` ConfigError."""
    for name in (EMBEDDER.name, "pooling"):
        if getattr(reading, name) is not None:
            _refuse("there is no text among the inputs that would go through it.", name, reading)


def _refuse(said: str, name: str, reading: Reading) -> NoReturn:
    """Refuse a setting that does nothing. `Raises:` ConfigError."""
    place = Place(argument=Argument(name, getattr(reading, name)))
    raise ConfigError(said, ("Leave it out.",), place=place, kind="idle")


def _check_unknown(run: Run, reading: Reading) -> None:
    """Refuse to guess by what model a run's vectors were made. `Raises:` ConfigError."""
    if reading.embedder and reading.other_embedder:
        return
    raise ConfigError(
        f"the vectors of {run.path} do not say what model they were made with, so a text cannot become "
        f"one of them.",
        ("Name a model with ", EMBEDDER, ", and take it unchecked with ", OTHER, "."),
        place=Place(argument=EMBEDDER),
        kind="unknown_embedder",
    )
