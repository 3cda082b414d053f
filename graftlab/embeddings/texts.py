"""Texts to be embedded: of a data file, of a folder that `synthesize` wrote, or of a run file's task."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftlab import config, runfile
from graftlab.data import readers, textfile
from graftlab.data.rows import Numbered
from graftlab.errors import Argument, ConfigError, DataError, in_row, unknown
from graftlab.runs import material

TEXTS = "texts.jsonl"
"""The file of a split's folder that has the text of each vector."""
COLUMN = "text"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Texts:
    """Texts in their order: that of the vectors."""

    where: str
    values: Sequence[str]

    @property
    def sha256(self) -> str:
        """Hash of all of them, in their order."""
        hashed = hashlib.sha256()
        for text in self.values:
            data = text.encode()
            hashed.update(len(data).to_bytes(8, "little"))
            hashed.update(data)
        return hashed.hexdigest()


def read(source: str, column: str | None, overrides: Sequence[str] = ()) -> dict[str, Texts]:
    """Return the texts of each split; those of a data file under the name ''.

    Raises:
        ConfigError: no such file, recipe or column.
        DataError: a text is missing, empty, or no text.
    """
    path = Path(source)
    if path.is_dir() or readers.suffix_of(path):
        if overrides:
            said = f"{source} is no run file, of which keys could be set."
            raise ConfigError(said, kind="idle", given=list(overrides))
        return _folder(path, column) if path.is_dir() else {"": of_file(path, column)}
    file = runfile.resolve(config.read(source, overrides))
    rows = material.read(file).splits
    return {
        split: _gather(f"{split} of {source}", _numbered(rows[split]), column)
        for split in SPLITS
        if len(rows.get(split, ()))
    }


def _folder(folder: Path, column: str | None) -> dict[str, Texts]:
    paths = {split: folder / split / TEXTS for split in SPLITS}
    there = {split: path for split, path in paths.items() if path.is_file()}
    if not there:
        raise DataError(
            f"{folder} has no train/{TEXTS}: a folder is one that `graftlab synthesize` wrote. Name a "
            f"file of texts, or a run file.",
            kind="missing",
        )
    return {split: of_file(path, column) for split, path in there.items()}


def of_file(path: Path, column: str | None = None) -> Texts:
    """Return the texts of a data file. `Raises:` as `read`."""
    return _gather(str(path), readers.read(path, (COLUMN, "")), column)


def _numbered(rows: Iterable[Mapping[str, object]]) -> Iterable[Numbered]:
    """Return a task's rows with the columns that its texts stand in."""
    for row in rows:
        fields = row.get("fields")
        index = row.get("index")
        columns = dict(fields) if isinstance(fields, Mapping) else dict(row)
        yield index if isinstance(index, int) else 0, columns


def _gather(where: str, rows: Iterable[Numbered], column: str | None) -> Texts:
    found: list[str] = []
    for index, row in rows:
        if isinstance(row, str):
            raise _unusable(where, index, row)
        column = column or _only_text(where, row)
        if column not in row:
            said = f"{where}: {unknown('column', column, row)}"
            raise ConfigError(said, kind="unknown", given=column, allowed=sorted(row))
        found.append(checked(where, index, row[column], column))
    if not found:
        raise DataError(f"{where} has no texts.", kind="empty")
    return Texts(where, found)


def _only_text(where: str, row: Mapping[str, object]) -> str:
    """Return the column named `text`, or the only one that holds text."""
    texts = [name for name, value in row.items() if isinstance(value, str)]
    if COLUMN in texts:
        return COLUMN
    if len(texts) != 1:
        named = ", ".join(texts) or "none"
        said = f"{where}: which column has the texts? Those that hold text: {named}."
        raise ConfigError(
            said, ("Name it with ", Argument("column"), "."), kind="missing", allowed=texts
        )
    return texts[0]


def checked(where: str, index: int, text: object, column: str) -> str:
    """Return a text. `Raises:` DataError: it is none, or empty."""
    if not isinstance(text, str):
        raise _unusable(where, index, f"{column} {text!r:.60} is no text")
    if not text.strip():
        raise _unusable(where, index, f"{column} is empty")
    if not textfile.is_unicode(text):
        raise _unusable(where, index, f"{column} has half of a surrogate pair in it")
    return text


def _unusable(where: str, index: int, reason: str) -> DataError:
    return DataError(f"{reason}. Mend the row or leave it out.", place=in_row(where, index))
