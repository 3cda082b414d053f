"""No input trains in one task of a mixture while another is scored on it: their splits are made disjoint.

As within one task: validation yields to test and train to both, or `overlap: refuse` of the row's task stops.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from graftlab.contracts import Data, Note, Row, read_notes, written
from graftlab.data import doctor, splits
from graftlab.data.rows import Rows
from graftlab.errors import DataError

Held = Mapping[bytes, tuple[str, int]]
"""Each input of a split, with the first task that has it and its row there, from 1."""


class Shared(NamedTuple):
    """A row that stands in another task's split too."""

    place: int
    row: int
    """Its number in its source, from 1."""
    of: str
    there: int
    """The row's number in the source of the other task."""


def apart(own: Mapping[str, Data], refusing: Collection[str] = ()) -> dict[str, Data]:
    """Return the tasks' data without what another task is scored on, counted in their records and notes.

    Raises:
        DataError: a task of `refusing` would lose a row, or a task all rows of a split.
    """
    held = {split: _held(own, split) for split in ("validation", "test")}
    return {name: _without(name, data, held, name in refusing) for name, data in own.items()}


def _numbers(rows: Sequence[Row]) -> list[int]:
    indices = rows.columns["index"] if isinstance(rows, Rows) else [row["index"] for row in rows]
    return [index + 1 for index in indices]


def _held(own: Mapping[str, Data], split: str) -> Held:
    found: dict[bytes, tuple[str, int]] = {}
    for name, data in own.items():
        if keys := data.keys.get(split):
            for key, number in zip(keys, _numbers(data.splits[split]), strict=True):
                found.setdefault(key, (name, number))
    return found


def _without(name: str, data: Data, held: Mapping[str, Held], refuse: bool) -> Data:
    lost: dict[str, list[int]] = {}
    overlap: dict[str, dict[str, Any]] = {}
    notes: list[Note] = []
    for split, others in splits.YIELDS:
        for other in others:
            shared = _shared(data, split, held[other])
            for of in dict.fromkeys(found.of for found in shared):
                pairs = [(found.row, found.there) for found in shared if found.of == of]
                if refuse:
                    raise DataError(splits.refusal(f"{name}'s {split}", f"{of}'s {other}", pairs))
                rows = [row for row, _ in pairs]
                what = {"count": len(rows), "rows": rows}
                overlap.setdefault(split, {})[f"{splits.ALSO_IN}{other}_of_{of}"] = what
                where = {"split": split, "other": other, "of": of, "count": len(rows)}
                notes.append(Note.of("rows_of_other_task", **where, rows=rows[: doctor.SHOWN]))
            lost.setdefault(split, []).extend(found.place for found in shared)
    kept = {
        split: _kept(data.splits[split], set(places)) for split, places in lost.items() if places
    }
    if empty := [split for split, rows in kept.items() if not len(rows)]:
        held_in = " or ".join(dict(splits.YIELDS)[empty[0]])
        raise DataError(f"{name}: every {empty[0]} row also stands in {held_in} of another task.")
    return _counted(data, kept, overlap, notes) if kept else data


def _shared(data: Data, split: str, held: Held) -> list[Shared]:
    keys = data.keys.get(split, ())
    places = [place for place, key in enumerate(keys) if key in held]
    numbers = _numbers(data.splits[split]) if places else []
    return [Shared(place, numbers[place], *held[keys[place]]) for place in places]


def _kept(rows: Sequence[Row], lost: Collection[int]) -> Sequence[Row]:
    places = [place for place in range(len(rows)) if place not in lost]
    return rows.take(places) if isinstance(rows, Rows) else [rows[place] for place in places]


def _counted(
    data: Data,
    kept: Mapping[str, Sequence[Row]],
    overlap: Mapping[str, Mapping[str, Any]],
    notes: Sequence[Note],
) -> Data:
    """Return data with splits that lost rows, and their record as it has become."""
    used = {**data.splits, **kept}
    record = dict(data.record)
    prints = dict(record.get("fingerprint", {}))
    for split, rows in kept.items():
        changed = [prints.get(split), _numbers(rows)]
        prints[split] = hashlib.sha256(repr(changed).encode()).hexdigest()
    before = read_notes(record.get("notes", ()))
    counts = [note for note in before if note.kind == "class_counts"]
    if counts:
        by_column = {split: rows for split, rows in used.items() if isinstance(rows, Rows)}
        now = list(doctor.classes(by_column, data.problem.labels))
        before = [*now, *(note for note in before if note.kind != "class_counts")]
    known = record.get("overlap", {})
    record["overlap"] = known | {s: {**known.get(s, {}), **found} for s, found in overlap.items()}
    record |= {"fingerprint": prints, "notes": written([*before, *notes])}
    record["sizes"] = {split: len(rows) for split, rows in used.items()}
    if "validation/sliced_train_data_size" in record:
        record["validation/sliced_train_data_size"] = len(used["train"])
    return replace(data, splits=used, record=record, keys={})
