"""What is predicted of a file, written beside the file's own columns: as CSV, JSONL or Parquet."""

import codecs
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.data import numbers, readers, textfile
from graftlab.data.vectors import layout
from graftlab.errors import Argument, ConfigError, DiskError, Place
from graftlab.rundir import files, spreadsheet

if TYPE_CHECKING:
    import pyarrow as pa

Answer = Mapping[str, Any]
"""What `Adapted.predict` returns of one input."""
OURS = ("row", "file", "task", "prediction", "probability")
"""Columns that are always this program's; one of the input of such a name has `input.` in front."""


class Inputs(NamedTuple):
    """What answers are written beside."""

    own: Mapping[int, Mapping[str, Any]]
    """The inputs' own columns, by their index."""
    delimiter: str = ","
    """Of a table: what parts its fields."""
    decimal: str = "."
    """What parts the decimals of numbers: the comma where a column has it and another one parts fields."""
    mark: str = ""
    """The byte order mark without which a spreadsheet takes UTF-8 for the encoding of its system."""


def check(output: Path) -> None:
    """Refuse a name that says no format, or one that cannot be written anew. `Raises:` ConfigError."""
    place = Place(argument=Argument("output", str(output)))
    if output.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise ConfigError(
            f"the ending says the format; known are {known}.",
            place=place,
            kind="unknown",
            given=output.suffix,
            allowed=list(FORMATS),
        )
    if output.exists():
        raise ConfigError("it is there already. Choose another name.", place=place, kind="taken")
    if not output.parent.is_dir():
        said = f"there is no folder {output.parent}. Make it first."
        raise ConfigError(said, place=place, kind="missing")


def write(output: Path, answers: Sequence[Answer], source: Path | str) -> None:
    """Write the answers to the inputs of a file, or to one text, in the order of the rows.

    Raises:
        DiskError: the file cannot be written.
    """
    inputs = _inputs(source)
    own = {index: _writable(row) for index, row in inputs.own.items()}
    try:
        FORMATS[output.suffix.lower()](output, _writable(answers), inputs._replace(own=own))
    except OSError as error:
        place = Place(argument=Argument("output", str(output)))
        said = f"it cannot be written: {error}."
        raise DiskError(said, place=place, kind="unwritable") from error


def _inputs(source: Path | str) -> Inputs:
    """Return the inputs with what a CSV beside them needs to open in the program that theirs is from."""
    own = _own(source)
    if isinstance(source, str) or readers.suffix_of(source) != ".csv":
        return Inputs(own)
    layout = readers.look(source)
    with textfile.opened(source) as file:
        marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    mark = "\ufeff" if marked or layout.encoding != "utf-8" else ""
    names = dict.fromkeys(name for row in own.values() for name in row)
    commas = layout.delimiter != "," and any(
        numbers.mark_of(row.get(name) for row in own.values()) == "," for name in names
    )
    return Inputs(own, layout.delimiter, "," if commas else ".", mark)


def _writable(value: Any) -> Any:
    """Return a value whose texts can be written as UTF-8: half of a surrogate pair becomes its escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_writable(key): _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value


def _own(source: Path | str) -> dict[int, dict[str, Any]]:
    """Return the inputs' own columns by their index; pictures are known by their file alone, and vectors by
    their place."""
    if isinstance(source, str):
        return {0: {"text": source}}
    if source.is_dir() or source.suffix.lower() in (*readers.IMAGES, *layout.SUFFIXES):
        return {}
    rows = readers.read(source, ("text", "label"), readers.look(source))
    return {
        index: {
            key: value
            for key, value in row.items()
            if not (_is_picture(value) or (key == VECTOR and isinstance(value, list)))
        }
        for index, row in rows
        if isinstance(row, dict)
    }


VECTOR = "vector"
"""The column of a row's vector: thousands of numbers, which no table wants."""


def _is_picture(value: object) -> bool:
    return isinstance(value, bytes) or (
        isinstance(value, dict) and isinstance(value.get("bytes"), bytes)
    )


def _certain(answer: Answer) -> dict[str, float]:
    """Return the probability of what is predicted, where there are any."""
    if "probabilities" not in answer:
        return {}
    return {"probability": answer["probabilities"][answer["name"]]}


def flat(answer: Answer, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer as a row of a table: which input it is, its columns, and what is predicted."""
    shares = {f"probability_{name}": p for name, p in answer.get("probabilities", {}).items()}
    taken = {*OURS, *shares}
    columns = {f"input.{key}" if key in taken else key: value for key, value in own.items()}
    said = answer.get("completion", answer.get("name", answer.get("label")))
    return {
        "row": answer["index"] + 1,
        **{key: answer[key] for key in ("file", "task") if key in answer},
        **columns,
        "prediction": said,
        **_certain(answer),
        **shares,
    }


def _jsonl(output: Path, answers: Sequence[Answer], inputs: Inputs) -> None:
    lines = (
        {
            "row": answer["index"] + 1,
            **answer,
            **_certain(answer),
            **({"input": inputs.own[answer["index"]]} if answer["index"] in inputs.own else {}),
        }
        for answer in answers
    )
    text = "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
    files.write_text(output, text)


def _csv(output: Path, answers: Sequence[Answer], inputs: Inputs) -> None:
    rows = [flat(answer, inputs.own.get(answer["index"], {})) for answer in answers]
    plain = [{key: _plain(value) for key, value in row.items()} for row in rows]
    files.write_text(
        output, inputs.mark + spreadsheet.text(plain, (), inputs.delimiter, inputs.decimal)
    )


def _parquet(output: Path, answers: Sequence[Answer], inputs: Inputs) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [flat(answer, inputs.own.get(answer["index"], {})) for answer in answers]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _of_one_kind([row.get(name) for row in rows]) for name in names}
    with files.new_file(output) as partial:
        parquet.write_table(pa.table(columns), partial)


def _of_one_kind(values: list[Any]) -> "pa.Array":
    """Return a column as it is where its values are numbers or texts alike, and fit; else as texts."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {str, bool}):
        try:
            return pa.array(values)
        except (
            pa.ArrowInvalid,
            OverflowError,
        ):  # an integer beyond 64 bits, or beside 0.5 beyond 53
            pass
    return pa.array(
        [None if value is None else str(_plain(value)) for value in values], pa.string()
    )


def _plain(value: Any) -> Any:
    """Return a cell: what is nested as JSON."""
    nested = isinstance(value, list | dict | tuple)
    return json.dumps(value, ensure_ascii=False, default=str) if nested else value


FORMATS: dict[str, Callable[[Path, Sequence[Answer], Inputs], None]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
