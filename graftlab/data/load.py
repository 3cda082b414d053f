"""A task's data from its section: opened, read, labelled, split and counted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from graftlab.config import Paths
from graftlab.contracts import Data, Note, Problem, Row, written
from graftlab.data import doctor, labels, nested, sources, splits
from graftlab.data.bad_rows import tolerate
from graftlab.data.rows import Rows
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError, DataError, Fault, GraftlabError, Place, wrong


def no_figures(rows: Sequence[Row]) -> dict[str, int]:
    """Return no counts."""
    return {}


class Form(NamedTuple):
    """How a task kind reads a row."""

    columns: Sequence[str]
    """Columns of the input."""
    label: str
    """Column of the label."""
    parse: Callable[[dict[str, object]], dict[str, object]]
    """A row of the source to the inputs and `key`, bytes that equal inputs share; raises `Unusable`, or
    `Dropped` with the reason."""
    figures: Callable[[Sequence[Row]], dict[str, int]] = no_figures
    """Counts about a split for the record."""


def task_labels(config: DataSection, label: str) -> tuple[str, ...]:
    """Return the task's class names: as given, or those of the local train rows.

    Raises:
        ConfigError: they are not given, and the rows are not local.
        DataError: the train file cannot be read.
    """
    if config.labels is not None:
        return labels.names_of(config.labels)
    files = sources.local_files(config)
    if not files:
        raise ConfigError(
            "task.labels: the class names must be given where rows are not local files."
        )
    if "train" not in files:
        raise ConfigError("task.labels: without a train split the class names must be given.")
    source = sources.open_file(config, files["train"], (label, label))
    split = sources.gather(source, [label], label, lambda _: {})
    return labels.infer(split.labels, config.drop_labels, split.where)


def check_local(config: DataSection, columns: Sequence[str], label: str) -> list[Fault]:
    """Return what is wrong with local files and their columns, read as far as their first row."""
    try:
        files = sources.local_files(config)
    except GraftlabError as error:
        return list(error.problems)
    found: list[Fault] = []
    if files and "train" not in files:
        assert config.data_dir is not None
        found += sources.no_train(config.data_dir).problems
    if not files and config.hub and config.hub.train is None:
        said = f"task.hub.train: {config.hub.path} has none: it is for evaluation alone."
        found.append(wrong(("hub", "train"), said, kind="missing"))
    for split, path in files.items():
        key, at = f"task.data_dir ({split})", Place(key=("data_dir",))
        if config.files:
            key, at = f"task.files.{split}", Place(key=("files", split))
        wanted = [*columns, label] if split == "train" else columns
        try:
            row = sources.first_row(config, path, (columns[0], label))
            if row is None:
                found.append(Fault(f"{key}: {path} has no row that can be read.", "no_rows", at))
            else:
                sources.check_columns(nested.reached(row, wanted), wanted, str(path))
        except GraftlabError as error:
            found += [replace(p, said=f"{key}: {p.said}", place=at) for p in error.problems]
    return found


def read_splits(config: DataSection, paths: Paths, form: Form, regression: bool = False) -> Data:
    """Return the task's three splits and how they came about.

    Raises:
        ConfigError, DataError, Refused
    """
    opened = sources.open_splits(config, paths, (form.columns[0], form.label))
    gathered = {
        split: sources.gather(
            source,
            [*form.columns, form.label] if split == "train" else form.columns,
            form.label,
            form.parse,
        )
        for split, source in opened.items()
    }
    try:
        reader = _reader(config, gathered, regression)
    except GraftlabError:  # rows that cannot be read are told before labels that are odd
        tolerate({s: sources.unread(split) for s, split in gathered.items()}, config.skip_bad)
        raise
    problem = Problem("regression") if regression else Problem("classes", reader.names)

    hidden = {
        s
        for s, split in gathered.items()
        if split.labels and all(map(reader.is_hidden, split.labels))
    }
    labelled = {s: sources.label(split, reader) for s, split in gathered.items() if s not in hidden}
    bad = {s: split.bad for s, split in gathered.items()}
    skipped = tolerate(bad | {s: split.bad for s, split in labelled.items()}, config.skip_bad)
    rows = {s: split.rows for s, split in labelled.items()}
    for s, split_rows in rows.items():
        if not len(split_rows):
            why = "".join(f" {n} rows ({why}) are left out." for why, n in _dropped(gathered[s]))
            raise DataError(f"{gathered[s].where} has no row that can be used.{why}")
    odd = list(_odd_labels(config, gathered["train"])) if problem.labels and "train" in rows else []
    used, record, keys = examined(rows, hidden, config)
    counted = list(doctor.classes(used, problem.labels))
    if isinstance(reader, labels.Scores) and reader.mark == ",":
        odd.append(Note.of("decimal_commas", column=form.label))
    record["notes"] = written([*sources.said(opened), *counted, *odd]) + record["notes"]
    record["notes"] += written(
        Note.of("rows_left_out", split=s, rows=count, reason=reason)
        for s in gathered
        for reason, count in _dropped(gathered[s])
    )
    figures = {split: form.figures(rows) for split, rows in used.items()}
    return Data(
        used,
        problem,
        {
            **_origin(config, opened, labelled, skipped),
            "dropped": {s: dict(split.dropped) for s, split in gathered.items() if split.dropped},
            **record,
            **figures_of(figures),
        },
        keys,
    )


def examined(
    rows: Mapping[str, Rows], hidden: set[str], config: DataSection
) -> tuple[dict[str, Rows], dict[str, Any], dict[str, list[bytes]]]:
    """Return the splits as they are used, their record with what the doctor finds in its notes, and keys.

    Raises:
        DataError: as `splits.prepare`; or what is found is refused.
    """
    limit = getattr(config, "max_length", None) or doctor.LONG
    notes = [note for split, found in rows.items() for note in doctor.of_rows(split, found, limit)]
    kept: dict[str, Rows] = {}
    for split, found in rows.items():
        kept[split], lost = doctor.without(split, found, config.empty, config.duplicates)
        notes += [
            Note.of("rows_left_out", split=split, rows=count, reason=reason)
            for reason, count in lost.items()
        ]
    used, record, keys = splits.prepare(kept, hidden, config)
    return used, {**record, "notes": written(notes) + record["notes"]}, keys


def _odd_labels(config: DataSection, train: sources.Gathered) -> Iterable[Note]:
    """Yield what is odd about labels; spellings that `task.labels` makes one class are one."""
    mapping = config.labels if isinstance(config.labels, Mapping) else {}
    named = {labels.spelled(value): name for value, name in mapping.items()}
    values = [named.get(str(labels.spell(value)), value) for value in train.labels]
    return doctor.of_labels(train.rows.columns["index"], values, train.where, config.labels is None)


def _reader(
    config: DataSection, gathered: Mapping[str, sources.Gathered], regression: bool
) -> labels.Scores | labels.Classes:
    """Return what reads labels. `Raises:` ConfigError, DataError: it cannot be told from train."""
    if regression:
        return labels.Scores(value for split in gathered.values() for value in split.labels)
    return labels.Classes(config.labels or _inferred(gathered, config), config.drop_labels)


def _inferred(gathered: Mapping[str, sources.Gathered], config: DataSection) -> tuple[str, ...]:
    if "train" not in gathered:
        raise ConfigError("task.labels: without a train split the class names must be given.")
    train = gathered["train"]
    return labels.infer(train.labels, config.drop_labels, train.where)


def _dropped(split: sources.Gathered) -> list[tuple[str, int]]:
    """Return for what reasons rows were left out by the task, and how many."""
    return sorted(split.dropped.items())


def _origin(
    config: DataSection,
    opened: Mapping[str, sources.Source],
    labelled: Mapping[str, sources.Labelled],
    skipped: Mapping[str, list[dict[str, object]]],
) -> dict[str, object]:
    return {
        "source": {split: source.where for split, source in opened.items()},
        "revision": config.hub.revision if config.hub else None,
        "skipped": {split: rows for split, rows in skipped.items() if rows},
        "dropped_labels": {s: split.dropped for s, split in labelled.items() if split.dropped},
    }


def figures_of(figures: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return per figure the count of each split where it is not 0."""
    names = sorted({name for counts in figures.values() for name in counts})
    return {name: {s: c[name] for s, c in figures.items() if c.get(name)} for name in names}
