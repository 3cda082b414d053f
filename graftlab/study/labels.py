"""What entries, settings and runs of a study are called: by what they differ in, and nothing else."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graftlab.config import Parsed

NAMED_BY = {"method": "name", "task": "name", "backbone": "model"}
"""What an entry of a list that is one word stands for."""
LONGEST_NAME = 120  # bytes of a run's folder: a few may stand below each other in a path


class Cell(NamedTuple):
    """What is compared: all that a run is, but for its seed."""

    task: str
    backbone: str
    method: str
    setting: tuple[tuple[str, str], ...]
    """Keys of `vary` with this cell's values, as they are shown."""


def labels(entries: Sequence[Mapping[str, Any]], key: str, base: Parsed) -> list[str]:
    """Return a name for each entry; where two share one, with the values in which they differ."""

    def name(entry: Mapping[str, Any]) -> str:
        below = base.values.get(key)
        given = {**(below if isinstance(below, dict) else {}), **(entry.get(key) or {})}
        said = str(given.get("name") or given.get("model") or given.get("kind") or key)
        return Path(said).name if Path(said).is_absolute() else said

    names = [name(entry) for entry in entries]
    flat = [dict(_flatten(entry)) for entry in entries]
    found = []
    for own, mine in zip(flat, names, strict=True):
        same = [other for other, its in zip(flat, names, strict=True) if its == mine]
        differ = {at: v for at, v in own.items() if any(other.get(at) != v for other in same)}
        said = [f"{at.removeprefix(f'{key}.')}={shown(value)}" for at, value in differ.items()]
        found.append(" ".join([mine, *said]))
    return found


def _flatten(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def shown_setting(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, shown(value)) for key, value in _flatten(values))


def shown(value: Any) -> str:
    """Return a value as tables and folders have it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def run_name(cell: Cell, seed: int, lists: Iterable[Sequence[object]], taken: set[str]) -> str:
    """Return a folder's name that says what the run is, with what all runs share left out."""
    several = [label for label, items in zip(cell[:3], lists, strict=True) if len(items) > 1]
    setting = [f"{key.rpartition('.')[2]}={value}" for key, value in cell.setting]
    words = "-".join([*(several or [cell.method]), *setting])
    plain = re.sub(r"[^\w.=+-]+", "_", words).strip("._")
    plain = plain.encode()[:LONGEST_NAME].decode(errors="ignore")
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (f"{plain}{number}-seed{seed}" for number in numbers)
    return next(name for name in names if name not in taken)
