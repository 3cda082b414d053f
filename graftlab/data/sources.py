"""Where a task's rows come from: which file, hub data set or function gives each split."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from graftlab.config import Paths
from graftlab.contracts import Note
from graftlab.data import foreign_code, labels, nested, readers
from graftlab.data.bad_rows import Bad, tolerate
from graftlab.data.labels import Classes, Dropped, Scores, Unusable
from graftlab.data.rows import Numbered, Rows
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError, DataError, Place, near_file, nearest

SPLITS = ("train", "validation", "test")


class Source(NamedTuple):
    """The rows of one split before they are looked at."""

    where: str
    """What messages call it: the file, or data set and split."""
    rows: Iterable[Numbered]
    notes: tuple[Note, ...] = ()
    """How it is read, where that is not the usual way."""
    files: bool = False
    """Whether each row is a file of a folder."""


class Gathered(NamedTuple):
    """A split's inputs with the labels as they stand in the data."""

    rows: Rows
    """`index` and the inputs."""
    labels: list[object]
    bad: Bad
    dropped: Counter[str]
    """Reasons why rows were left out by the task, each with their number."""

    @property
    def where(self) -> str:
        """What messages call the source."""
        return self.bad.where


def local_files(config: DataSection) -> dict[str, Path]:
    """Return the local file or folder of each split; empty where the rows come from elsewhere.

    Raises:
        ConfigError: a key says how to read files of another kind.
        DataError: the folder is missing or holds no split, or a split has two files.
    """
    if config.files:
        named = {split: path for split in SPLITS if (path := getattr(config.files, split))}
        readers.check_given(config.given, list(named.values()))
        return named
    if not config.data_dir:
        return {}
    if not config.data_dir.is_dir():
        raise DataError(
            f"task.data_dir: there is no folder {config.data_dir.absolute()}.{near_file(config.data_dir)}",
            place=Place(key=("data_dir",)),
            kind="missing",
        )
    found = {split: split_file(config.data_dir, split) for split in SPLITS}
    if not any(found.values()):
        raise no_train(config.data_dir)
    held = {split: path for split, path in found.items() if path}
    readers.check_given(config.given, list(held.values()))
    return held


def no_train(folder: Path) -> DataError:
    """Return the error to raise where a folder has nothing to train on."""
    held = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
    return DataError(
        f"{folder} has no train.jsonl.gz (or train.jsonl, train.csv, train.parquet, ..., "
        f"or a folder train). It holds: {held}.",
        place=Place(key=("data_dir",)),
        kind="missing",
    )


def split_file(folder: Path, split: str) -> Path | None:
    names = [f"{split}{suffix}" for suffix in (*readers.SUFFIXES, *readers.PACKED)]
    found = [folder / name for name in [*names, split] if (folder / name).exists()]
    # A text file beside a table tells of it, as often as not.
    found = [path for path in found if readers.suffix_of(path) != ".txt"] or found
    if len(found) > 1:
        held = ", ".join(path.name for path in found)
        raise DataError(
            f"{folder} has more than one {split}: {held}. Keep one, or use task.files.",
            kind="ambiguous",
        )
    return found[0] if found else None


def open_splits(config: DataSection, paths: Paths, columns: tuple[str, str]) -> dict[str, Source]:
    """Return the splits that the task's source has; `columns` names image and label of image folders.

    Raises:
        ConfigError, DataError, Refused: the source cannot be used.
    """
    if local := local_files(config):
        return {split: open_file(config, path, columns) for split, path in local.items()}
    if config.hub:
        from graftlab.data import hub

        return {
            split: Source(f"{config.hub.path} ({name})", rows)
            for split, (name, rows) in hub.load(config.hub, paths.tables).items()
        }
    assert config.source
    return _call(config.source, config.options)


def open_file(config: DataSection, path: Path, columns: tuple[str, str]) -> Source:
    """Return a local file as the section says to read it. `Raises:` DataError: it cannot be read."""
    layout = readers.look(path, config.given)
    notes = tuple(readers.notes(path, layout))
    return Source(str(path), readers.read(path, columns, layout), notes, path.is_dir())


def said(opened: Mapping[str, Source]) -> list[Note]:
    """Return how the splits are read, where that is not the usual way."""
    return [note for source in opened.values() for note in source.notes]


def unread(split: Gathered) -> Bad:
    """Return the rows that cannot be used whatever the classes are, those with lists as labels too."""
    indices = split.rows.columns["index"]
    nested = [
        (index, labels.NESTED.format(value=value))
        for index, value in zip(indices, split.labels, strict=True)
        if labels.is_nested(value)
    ]
    return split.bad._replace(rows=sorted([*split.bad.rows, *nested]))


def _call(source: str, options: Mapping[str, object]) -> dict[str, Source]:
    function = foreign_code.function(source, options)
    try:
        splits = function(**options)
    except TypeError as error:
        raise ConfigError(f"task.source {source} with options {dict(options)}: {error}.") from error
    if not isinstance(splits, Mapping) or "train" not in splits or set(splits) - set(SPLITS):
        raise DataError(
            f"task.source {source} must return a dict of train and of validation, test."
        )
    return {
        split: Source(f"{source} ({split})", enumerate(splits[split]))
        for split in SPLITS
        if split in splits
    }


def check_columns(row: Mapping[str, object], wanted: Iterable[str], where: str) -> None:
    """Check that a row has the columns.

    Raises:
        DataError: it has not; names the nearest and all that there are.
    """
    for column in wanted:
        if column not in row:
            close = nearest(column, row)
            hint = f" Did you mean {close!r}?" if close else ""
            known = ", ".join(map(str, row))
            if f"{column}.1" in row and f"{column}.2" in row:
                hint = f" Several have that name: the first is {column}.1, the next {column}.2."
            if {"chosen", "rejected"} <= set(row):
                hint = (
                    " These are preferences (chosen and rejected), and training on them is out of scope; "
                    "the chosen answers alone can be trained on: name their column."
                )
            within = nested.hint(column, row)
            raise DataError(
                f"{where} has no column {column!r}.{within or hint} Its columns: {known} "
                f"(task.columns says which is which).",
                kind="no_column",
                given=column,
                allowed=list(map(str, row)),
            )


def gather(
    source: Source,
    columns: Iterable[str],
    label: str,
    parse: Callable[[dict[str, object]], dict[str, object]],
) -> Gathered:
    """Read a split: `parse` turns a row into its inputs, or raises `Unusable` or `Dropped`.

    Raises:
        DataError: there is no row, or the first one lacks a column.
    """
    inputs: list[dict[str, object]] = []
    indices: list[int] = []
    found_labels: list[object] = []
    bad: list[tuple[int, str]] = []
    files: dict[int, str] = {}
    dropped: Counter[str] = Counter()
    columns = tuple(columns)
    checked = False
    for index, row in source.rows:
        if isinstance(row, str):
            file, _, why = row.partition(": ") if source.files else ("", "", row)
            bad.append((index, why))
            files |= {index: file} if source.files else {}
            continue
        row = nested.reached(row, (*columns, label))
        if not checked:
            check_columns(row, columns, source.where)
            checked = True
        try:
            if missing := [column for column in columns if column not in row]:
                raise Unusable(f"no column {missing[0]!r}; it has {', '.join(map(str, row))}")
            inputs.append(parse(row))
        except Unusable as reason:
            bad.append((index, str(reason)))
            files |= {index: str(row[columns[0]])} if source.files else {}
            continue
        except Dropped as reason:
            dropped[str(reason)] += 1
            continue
        indices.append(index)
        found_labels.append(row.get(label))
    if not indices and not bad and not dropped:
        raise DataError(f"{source.where} has no rows.", kind="empty")
    names = dict.fromkeys(name for row in inputs for name in row)
    rows = {name: [row.get(name) for row in inputs] for name in names}
    unusable = Bad(source.where, bad, files)
    return Gathered(Rows({"index": indices, **rows}), found_labels, unusable, dropped)


class Labelled(NamedTuple):
    """A split with its labels read."""

    rows: Rows
    dropped: int
    """Rows left out because of `drop_labels`."""
    bad: Bad


def label(split: Gathered, read: Classes | Scores) -> Labelled:
    """Return the split's rows with `label` as a class integer or a score."""
    keep: list[int] = []
    read_labels: list[int | float] = []
    bad = list(split.bad.rows)
    dropped = 0
    indices = split.rows.columns["index"]
    for position, value in enumerate(split.labels):
        try:
            read_labels.append(read(value))
            keep.append(position)
        except Dropped:
            dropped += 1
        except Unusable as reason:
            bad.append((indices[position], str(reason)))
    rows = split.rows if len(keep) == len(split.rows) else split.rows.take(keep)
    unusable = split.bad._replace(rows=sorted(bad))
    return Labelled(Rows({**rows.columns, "label": read_labels}), dropped, unusable)


def usable(
    gathered: Mapping[str, Gathered], skip_bad: int
) -> tuple[dict[str, Rows], dict[str, list[dict[str, object]]]]:
    """Return the splits' rows, and the record of those that cannot be used.

    Raises:
        DataError: those are more than `skip_bad` of a split, or all.
    """
    skipped = tolerate({split: found.bad for split, found in gathered.items()}, skip_bad)
    for found in gathered.values():
        if not len(found.rows):
            raise DataError(f"{found.where} has no row that can be used.")
    record = {split: rows for split, rows in skipped.items() if rows}
    return {split: found.rows for split, found in gathered.items()}, record


def first_row(
    config: DataSection, path: Path, columns: tuple[str, str]
) -> dict[str, object] | None:
    """Return a local file's first row that can be read, or None. `Raises:` as `open_file`."""
    rows = open_file(config, path, columns).rows
    return next((row for _, row in rows if isinstance(row, dict)), None)
