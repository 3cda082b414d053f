"""Which run goes on where, while several do: a table on a terminal that is drawn anew, nothing elsewhere."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graftlab.rundir.run import Run
from graftlab.terminal import console
from graftlab.workers.slots import Slot

if TYPE_CHECKING:
    from rich.table import Table

DRAW_EVERY_S = 0.5
TAIL = 16_384  # bytes of metrics.jsonl in which the last evaluation stands, while steps are logged often
MOST = 24  # slots that are shown: what is more than a screen, nobody reads
HEAD = ("slot", "run", "where", "status", "step", "score", "time")


class _Entry(NamedTuple):
    name: str
    folder: Path
    began: float


class Board:
    """The runs that go on, by slot."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._entries: dict[int, _Entry | None] = {slot.number: None for slot in slots}

    @contextlib.contextmanager
    def on(self, slot: Slot, name: str, folder: Path) -> Iterator[None]:
        """Show a run in a slot for as long as it is inside."""
        self._entries[slot.number] = _Entry(name, folder, time.monotonic())
        try:
            yield
        finally:
            self._entries[slot.number] = None

    @contextlib.contextmanager
    def shown(self, quiet: bool) -> Iterator[None]:
        """Draw the table while inside, if there are several slots and a terminal to draw on."""
        terminal = console(stderr=True)
        if quiet or len(self._entries) < 2 or not terminal.is_terminal:
            yield
            return
        from rich.live import Live

        rate = 1 / DRAW_EVERY_S
        with Live(
            console=terminal, get_renderable=self._table, refresh_per_second=rate, transient=True
        ):
            yield

    def _table(self) -> "Table":
        from rich.table import Table

        table = Table(*HEAD, box=None, pad_edge=False)
        for number, row in list(self.rows().items())[:MOST]:
            table.add_row(str(number), *row)
        return table

    def rows(self) -> dict[int, tuple[str, ...]]:
        """Return by slot what the table shows: run, where, status, step, score and time."""
        return {number: _row(entry) for number, entry in list(self._entries.items())}


def _row(entry: _Entry | None) -> tuple[str, ...]:
    if entry is None:
        return ("", "", "free", "", "", "")
    minutes, seconds = divmod(round(time.monotonic() - entry.began), 60)
    step, score = _last(Run(entry.folder))
    where = _holder(entry.folder)
    status = "training" if step else "starting" if where else "waiting"
    return entry.name, where, status, step, score, f"{minutes}:{seconds:02}"


def _holder(folder: Path) -> str:
    """Return the machine that a run's lock names; it is not asked for, as that could take it."""
    try:
        return (folder / "lock").read_text(encoding="utf-8").strip().rpartition(" on ")[2]
    except (OSError, ValueError):
        return ""


def _last(run: Run) -> tuple[str, str]:
    """Return the last step that was logged and the last score on validation, as far as they are known."""
    try:
        with run.metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return "", ""
    step = score = ""
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:  # the first may be cut off, and the last half written
            continue
        step = str(found.get("step", step))
        scores = (k for k, v in found.items() if _is_score(k) and isinstance(v, float))
        if (key := next(scores, None)) is not None:
            score = f"{key.removeprefix('validation/')} {found[key]:.4g}"
    return step, score


def _is_score(key: str) -> bool:
    return key.startswith("validation/") and "size" not in key and key != "validation/loss"
