"""The data of a run file: made, checked and kept before a run needs them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftlab.contracts import Data, parts_of
from graftlab.data import sources
from graftlab.rundir.records import Json
from graftlab.runfile import RunFile
from graftlab.runs import material
from graftlab.tasks.mixture.rows import by_task

SHOWN = 3  # rows of a split
QUANTILES = {"median": 0.5, "95 %": 0.95}


@dataclass(frozen=True)
class Prepared:
    """The data of a run file, read, split and turned into tokens."""

    file: RunFile
    data: Data
    record: Mapping[str, Any]
    """What a run's environment.json says of them."""
    lengths: Mapping[str, Mapping[str, int]]
    """By split: shortest, median, 95 % and longest in tokens; empty where they are images."""
    cache: Mapping[str, object]
    """Where the rows are kept, and whether they were there before; empty for rows of this machine."""
    tasks: "Mapping[str, Prepared]" = field(default_factory=dict)
    """Of a mixture: each task by its name."""

    def as_json(self, rows: int = SHOWN) -> dict[str, object]:
        """Return what there is to know of the data, with the first rows of each split."""
        return {
            "cache": dict(self.cache),
            "labels": labels(self),
            "lengths": dict(self.lengths),
            "record": dict(self.record),
            "rows": first_rows(self, rows),
        }


def prepare(file: RunFile) -> Prepared:
    """Return the data of a run; what comes from the hub is fetched, and kept as a run keeps it.

    The model is built without its weights, for its tokenizer.

    Raises:
        ConfigError, DataError, ModelError, Refused
    """
    before = _where(file)
    loaded = material.load(file, meta=True)
    data, task = loaded.data, loaded.task
    has_tokens = loaded.backbone.max_length is not None
    splits = [split for split in data.splits if task.size(split) and has_tokens]
    lengths = {split: list(task.lengths(split)) for split in splits}
    notes = [*data.record.get("notes", ()), *task.record.get("notes", ())]
    record = {**data.record, **task.record, "notes": notes}
    whole = Prepared(file, data, record, _spreads(lengths), _kept(before[""], file))
    found = {}
    for number, name in enumerate(file.task.parts):
        mine = {}
        for split, values in lengths.items():
            places = parts_of(task, split)
            assert places is not None, name
            mine[split] = [n for n, place in zip(values, places, strict=True) if place == number]
        part, own = of_tasks(file, data)[name]
        record = {**own.record, **whole.record["of_tasks"][name]}
        found[name] = Prepared(part, own, record, _spreads(mine), _kept(before[name], part))
    return replace(whole, tasks=found)


def of_tasks(file: RunFile, data: Data) -> dict[str, tuple[RunFile, Data]]:
    """Return run file and rows of each task of a mixture, by its name; of another task its own, as ''."""
    if not file.task.parts:
        return {"": (file, data)}
    names, problems = list(file.task.parts), dict(data.problem.parts)
    rows = {split: by_task(found, names) for split, found in data.splits.items()}
    return {
        name: (
            replace(file, task=part),
            Data(
                {split: found[name] for split, found in rows.items()},
                problems[name],
                data.record["tasks"][name],
            ),
        )
        for name, part in file.task.parts.items()
    }


def _where(file: RunFile) -> dict[str, Path | None]:
    """Return where rows are kept, if they are: a mixture's tasks by name, others as ''."""
    tasks = {"": file.task, **file.task.parts}
    return {name: _cached(replace(file, task=task)) for name, task in tasks.items()}


def _kept(before: Path | None, file: RunFile) -> dict[str, object]:
    """Return what is known of the rows' cache, now that they have been read."""
    if (after := _cached(file)) is None:
        return {}
    return {"folder": str(after), "bytes": _size(after), "was_there": before is not None}


def _cached(file: RunFile) -> Path | None:
    """Return the folder in which `datasets` keeps the rows of the hub's data set, if it is there."""
    hub = getattr(file.task.config, "hub", None)
    if hub is None or sources.local_files(file.task.config):
        return None
    from datasets.naming import camelcase_to_snakecase

    owner, slash, name = hub.path.rpartition("/")
    folder = file.paths.tables / f"{owner}{'___' * bool(slash)}{camelcase_to_snakecase(name)}"
    kept = sorted(folder.glob(f"{hub.name or 'default'}*")) if folder.is_dir() else []
    return kept[0] if any(path.suffix == ".arrow" for k in kept for path in k.rglob("*")) else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _spreads(lengths: Mapping[str, Sequence[int]]) -> dict[str, dict[str, int]]:
    found = {}
    for split, values in lengths.items():
        if values:
            ordered = sorted(int(value) for value in values)
            inner = {n: ordered[int(share * (len(ordered) - 1))] for n, share in QUANTILES.items()}
            found[split] = {"shortest": ordered[0], **inner, "longest": ordered[-1]}
    return found


def labels(prepared: Prepared) -> dict[str, dict[str, int]]:
    """Return how many rows of each split have each class; empty where there are no classes."""
    names = () if prepared.tasks else prepared.data.problem.labels
    counted = {
        split: Counter(row["label"] for row in rows)
        for split, rows in prepared.data.splits.items()
        if names and len(rows)
    }
    return {s: {name: count[i] for i, name in enumerate(names)} for s, count in counted.items()}


def first_rows(prepared: Prepared, count: int = SHOWN) -> dict[str, list[Json]]:
    """Return the first rows of each split, as what JSON can hold: an image by its form."""
    splits = prepared.data.splits.items()
    return {s: [_plain(row) for row in rows[:count]] for s, rows in splits if len(rows)}


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if hasattr(value, "shape"):
        return f"<{' x '.join(map(str, value.shape))} pixels>"
    return value if isinstance(value, str | int | float | None) else str(value)
