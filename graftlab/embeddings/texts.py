"""Texts to be embedded: of a data file, of a folder that `synthesize` wrote, or of a run file's task."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftlab import config, runfile
from graftlab.data import readers, textfile
from graftlab.data.rows import Numbered
from graftlab.errors import Argument, ConfigError, DataError, in_row, unknown
from graftlab.runs import material
from graftlab.tasks.elm.tree import TEXTS

COLUMN, LABEL = "text", "label"
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


Opened = dict[str, tuple[str, Iterable[Numbered]]]
"""Of each split where its rows are, and the rows; those of a data file under the name ''."""


def read(source: str, column: str | None, overrides: Sequence[str] = ()) -> dict[str, Texts]:
    """Return the texts of each split; those of a data file under the name ''.

    Raises:
        ConfigError: no such file, recipe or column.
        DataError: a text is missing, empty, or no text.
    """
    opened = _folder(Path(source)) if Path(source).is_dir() else open_rows(source, overrides)
    return {
        split: Texts(where, [text for text, _ in with_text(where, rows, column)])
        for split, (where, rows) in opened.items()
    }


def open_rows(source: str, overrides: Sequence[str] = ()) -> Opened:
    """Return the rows of a data file, or of a run file's task in its splits, a class by its name.

    Raises:
        ConfigError, DataError
    """
    path = Path(source)
    if readers.suffix_of(path):
        if overrides:
            said = f"{source} is no run file, of which keys could be set."
            raise ConfigError(said, kind="idle", given=list(overrides))
        return {"": (source, readers.read(path, (COLUMN, "")))}
    data = material.read(runfile.resolve(config.read(source, overrides)))
    return {
        split: (f"{split} of {source}", _numbered(data.splits[split], data.problem.labels))
        for split in SPLITS
        if len(data.splits.get(split, ()))
    }


def _folder(folder: Path) -> Opened:
    paths = {split: folder / split / TEXTS for split in SPLITS}
    there = {split: path for split, path in paths.items() if path.is_file()}
    if not there:
        raise DataError(
            f"{folder} has no train/{TEXTS}: a folder is one that `graftlab synthesize` wrote. Name a "
            f"file of texts, or a run file.",
            kind="missing",
        )
    return {split: (str(path), readers.read(path)) for split, path in there.items()}


def _numbered(rows: Iterable[Mapping[str, object]], classes: Sequence[str]) -> Iterable[Numbered]:
    """Yield a task's rows with the columns that its texts stand in."""
    for row in rows:
        fields, index, label = row.get("fields"), row.get("index"), row.get(LABEL)
        columns = {**row, **(fields if isinstance(fields, Mapping) else {})}
        if classes and isinstance(label, int):
            columns[LABEL] = classes[label]
        yield index if isinstance(index, int) else 0, columns


def with_text(
    where: str, rows: Iterable[Numbered], column: str | None
) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each row's text with the row. `Raises:` as `read`; DataError: there is none."""
    index = -1
    for index, row in rows:
        if isinstance(row, str):
            raise _unusable(where, index, row)
        column = column or _only_text(where, row)
        if column not in row:
            said = f"{where}: {unknown('column', column, row)}"
            raise ConfigError(said, kind="unknown", given=column, allowed=sorted(row))
        yield checked(where, index, row[column], column), row
    if index < 0:
        raise DataError(f"{where} has no texts.", kind="empty")


def _only_text(where: str, row: Mapping[str, object]) -> str:
    """Return the column named `text`, or the only one but `label` that holds text."""
    texts = [name for name, value in row.items() if isinstance(value, str) and name != LABEL]
    if COLUMN in texts:
        return COLUMN
    if len(texts) != 1:
        named = ", ".join(texts) or "none"
        said = f"{where}: which column has the texts? Those that hold text: {named}."
        remedy = ("Name it with ", Argument("column"), ".")
        raise ConfigError(said, remedy, kind="missing", allowed=texts)
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
