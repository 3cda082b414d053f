"""Make, check and keep the data of a run file, and show what they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from graftlab.commands._options import AllowCode, File, Json, Overrides, aligned
from graftlab.terminal import say, say_json

WIDTH = 72  # of a text that is shown
LOST = {
    "skipped": "cannot be used",
    "dropped_labels": "left out by their label",
    "dropped": "left out",
    "left_out": "not trained on",
    "too_long": "too long",
    "truncated": "cut",
}


def command(
    file: File,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Also write the rows as train, validation and test.jsonl.gz into a new folder.",
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", min=0, metavar="N", help="Rows of each split to show.")
    ] = 1,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Make, check and keep the data of a run file, and show what they are.

    What comes from the hub is fetched and kept, so that a run finds it without a network. The model's
    tokenizer is needed too, its weights are not.
    """
    from graftlab import config, runfile
    from graftlab.contracts import read_notes
    from graftlab.planning import preparation
    from graftlab.planning import rows as planned_rows
    from graftlab.rundir import files

    if out is not None:
        files.refuse_taken(out)  # before anything is fetched
    prepared = preparation.prepare(runfile.resolve(config.read(file, overrides or ())))
    use = None if out is None else planned_rows.write(prepared, file, overrides or (), out)
    tasks = {name: task.as_json(rows) for name, task in prepared.tasks.items()}
    found = {
        "task": prepared.file.resolved["task"].get("name") or prepared.file.task.name,
        **prepared.as_json(rows),
        "tasks": tasks,
        "out": None if out is None else str(out),
        "use": use,
    }
    if as_json:
        say_json(found)
        return
    for name, task in (tasks or {str(found["task"]): found}).items():
        _show(name, task)
    for note in read_notes(prepared.record.get("notes", ())):
        say(f"note: {note}")
    if use is not None:
        say(f"{out} holds them. A run reads them with these options behind its own:")
        say("\n".join(f"  --set {_quoted(change)}" for change in use))


def _show(name: str, found: dict[str, Any]) -> None:
    """Print what there is to know of a task."""
    say(aligned([("task", name), *_lines(found)]))
    for split, shown in found["rows"].items():
        for row in shown:
            fields = row.pop("fields", {})  # of a task that writes: its columns
            columns = {**row, **fields}.items()
            say(f"{split}:\n{aligned([(key, _short(value)) for key, value in columns])}")


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    record, cache = found["record"], found["cache"]
    lines = []
    if cache:
        how = "was there already" if cache["was_there"] else "is there now"
        lines.append(("cache", f"{cache['folder']} ({cache['bytes'] / 2**20:.1f} MiB) {how}"))
    if record.get("max_length"):
        lines.append(("longest input", f"{record['max_length']} tokens"))
    before = record.get("original_sizes", {})
    for split, size in (record.get("sizes") or {}).items():
        of = f" of {before[split]:,}" if before.get(split, size) != size else ""
        lines.append((split, f"{size:,} rows{of}"))
        lines += [("", text) for text in _about(found, split)]
    return lines


def _about(found: dict[str, Any], split: str) -> Iterator[str]:
    """Yield what there is to know of a split, a line each."""
    record = found["record"]
    if where := (record.get("source") or {}).get(split):
        yield f"from {where}"
    if counts := found["labels"].get(split):
        yield _short(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if spread := found["lengths"].get(split):
        yield "tokens: " + ", ".join(f"{name} {length}" for name, length in spread.items())
    for key, what in LOST.items():
        lost = record.get(key, {}).get(split)
        if isinstance(lost, dict):
            yield from (f"{count:,} rows {what}: {reason}" for reason, count in lost.items())
        elif lost:
            count = len(lost) if isinstance(lost, list) else lost
            yield f"{count:,} rows {what}"


def _short(value: object) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else str(value)
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."


def _quoted(change: str) -> str:
    import shlex

    return shlex.quote(change)
