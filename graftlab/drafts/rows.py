"""A run file for data: a table, a chat export, a folder of images, a folder with a file for each split."""

import re
from pathlib import Path
from typing import Any

from graftlab.contracts import Note
from graftlab.data import readers, sources
from graftlab.drafts import columns, guesses
from graftlab.drafts.draft import CLASSES, GENERATION, IMAGES, STANDS_IN, Draft
from graftlab.errors import DataError, Place

CARVED = 30  # rows from which a tenth is worth holding back
LONGEST = 60  # characters of a name that is given to a run file
TRAINING: dict[str, dict[str, Any]] = {  # usual for LoRA on models of the size that stands in
    CLASSES: {"epochs": 3, "batch_size": 32, "learning_rate": 5e-4},
    IMAGES: {"epochs": 5, "batch_size": 32, "learning_rate": 1e-3},
    GENERATION: {"epochs": 3, "batch_size": 8, "learning_rate": 2e-4},
}


def draft(path: Path) -> Draft:
    """Return a run file for a file or folder of data.

    Raises:
        DataError: it holds none that can be used.
    """
    where, file = _place(path)
    seen = columns.look(file)
    task = {"kind": IMAGES} if file.is_dir() else columns.of(seen, file)
    kind = task["kind"] if task["kind"] in TRAINING else CLASSES
    alone = where.keys() == {"files"}
    carved = {"test_share": 0.1} if alone and len(seen.rows) >= CARVED else {}
    if alone and not carved:
        carved = {"test_share": 0.25, "validation_share": 0.25}
    training = {**TRAINING[kind], "batch_size": _batch(len(seen.rows), kind)}
    values = {
        "backbone": {"model": STANDS_IN[kind]},
        "task": {**task, **where, **carved},
        "training": training,
    }
    found = guesses.of(file, seen, {**task, **where, **carved})
    what, remarks = _said(file, seen), _remarks(task, found.get("not used"))
    return Draft(path, what, values, remarks, name=_name(path), guesses=found)


def _name(path: Path) -> str:
    """Return what the run file is called after its data: a name that a folder of runs can have too."""
    whole = path.resolve()
    name = whole.name if path.is_dir() else whole.name.removesuffix(".gz").rpartition(".")[0]
    return re.sub(r'[\\:"<>|?*]', "-", name).strip(". ")[:LONGEST] or "run"


def _place(path: Path) -> tuple[dict[str, Any], Path]:
    """Return where rows are, as a task says it, and the file or folder of the train split.

    Raises:
        DataError: a folder holds neither splits, nor images, nor one file of data.
    """
    if path.is_file() or not path.exists():
        return {"files": {"train": path}}, path
    splits = {split: sources.split_file(path, split) for split in sources.SPLITS}
    if splits["train"]:
        return {"data_dir": path}, splits["train"]
    inside = [one for one in sorted(path.iterdir()) if not readers.is_system(Path(one.name))]
    if any(one.is_dir() and _has_pictures(one) for one in inside):
        return {"files": {"train": path}}, path
    held = [one for one in inside if one.is_file() and readers.suffix_of(one)]
    if len(held) == 1:
        return {"files": {"train": held[0]}}, held[0]
    names = ", ".join(one.name for one in inside[:10]) or "nothing"
    raise DataError(
        f"{path} holds neither train.csv (or .jsonl, .parquet, ..., or a folder train), nor folders of "
        f"images, one a class, nor one file of data. It holds: {names}.",
        place=Place(str(path)),
        kind="missing",
    )


def _has_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in readers.IMAGES for file in folder.rglob("*"))


def _batch(rows: int, kind: str) -> int:
    """Return a batch that small data fill several times in a pass."""
    batch = int(TRAINING[kind]["batch_size"])
    while batch > 1 and rows * 0.5 < 4 * batch:
        batch //= 2
    return batch


def _said(file: Path, seen: columns.Seen) -> str:
    more = " or more" if len(seen.rows) + seen.bad >= columns.SEEN else ""
    what = "images" if file.is_dir() else "rows"
    bad = f", {seen.bad} that cannot be read" if seen.bad else ""
    names = "" if file.is_dir() else f"; columns: {', '.join(seen.columns)}"
    return f"{len(seen.rows)}{more} {what}{bad}{names}" + _layout(file)


def _layout(file: Path) -> str:
    if file.is_dir():
        return ""
    notes: list[Note] = readers.notes(file, readers.look(file))
    return "".join(f"; {note}" for note in notes)


def _remarks(task: dict[str, Any], others: str | None) -> dict[str, str]:
    remarks = {
        "backbone": "a small one to start with; others: graftlab list backbones",
        "task.files": "more files: validation, test; then leave out the shares below",
        "task.test_share": "so much is held back to report on",
        "training": "the same for every method that is compared",
        "training.batch_size": "examples a step; micro_batch_size: as many as fit into memory",
    }
    if task["kind"] == CLASSES:
        read = "a score" if task.get("regression") else "its class"
        beside = f"; beside them: {others}" if others else ""
        remarks["task.columns"] = f"guessed: the text and {read}{beside}"
        remarks["task.labels"] = (
            "labels that differ by case or blanks alone are one class: as in the data, its class"
        )
    if task["kind"] == GENERATION:
        remarks["task"] = "what is trained of each example: graftlab show batch FILE"
    return remarks
