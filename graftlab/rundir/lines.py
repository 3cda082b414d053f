"""JSONL files of a run: they grow a line at a time, and are cut back to where a checkpoint has left them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from graftlab.errors import CheckpointError
from graftlab.rundir import files, manifest


class Mark(NamedTuple):
    """Where a file stood when a checkpoint was written."""

    length: int
    """In bytes."""
    sha256: str | None
    """Of so many bytes; None from a checkpoint of an older version."""

    @classmethod
    def of(cls, name: str, state: Mapping[str, Any]) -> "Mark | None":
        """Return what a checkpoint's state has of `<name>.jsonl`; None from one of an older version."""
        if name in (tables := state.get("tables", {})):
            return cls(*tables[name])
        length = state.get(f"{name}_bytes")
        return None if length is None else cls(length, state.get(f"{name}_sha256"))

    def fits(self, path: Path) -> bool:
        """Return whether a file begins with what stood there then."""
        content = path.read_bytes()[: self.length] if path.is_file() else b""
        return len(content) == self.length and self.sha256 in (None, manifest.hash_of(content))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a JSONL file; a last line cut off by a crash is left out.

    Raises:
        CheckpointError: a line is not a JSON object.
    """
    if not path.is_file():
        return []
    lines = [_read(line) for line in path.read_bytes().split(b"\n")[:-1]]
    found = [line for line in lines if line is not None]
    if len(found) < len(lines):
        number = lines.index(None) + 1
        raise CheckpointError(manifest.fault(path, "unreadable", line=number))
    return found


def _read(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds; None where it is not a JSON object with a step."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


class Lines:
    """A JSONL file that grows, and can be cut back to where a checkpoint left it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[bytes] = path.open("ab", buffering=0)
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        self.file.truncate(whole)  # a line that a crash has cut off would spoil the next one
        self._hash = hashlib.sha256(content[:whole])

    def append(self, values: Mapping[str, object]) -> None:
        """Add one line; floats keep their shortest exact form, what is not finite becomes null."""
        line = {k: None if _not_finite(v) else v for k, v in values.items()}
        rest = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self._hash.update(rest)
        while rest:  # a disk that is nearly full takes a part
            rest = rest[self.file.write(rest) :]

    def durable(self) -> Mark:
        """Bring all lines to the disk and return where the file stands."""
        os.fsync(self.file.fileno())
        return Mark(self.file.tell(), self._hash.hexdigest())

    def cut(self, mark: Mark) -> bool:
        """Forget what was written after a checkpoint; return whether all before it is as it was."""
        if not mark.fits(self.path):
            return False
        self.file.truncate(mark.length)
        self.file.seek(mark.length)
        self._hash = hashlib.sha256(self.path.read_bytes())
        return True

    def salvage(self, mark: Mark, step: int) -> tuple[int, Path]:
        """Keep the lines before a checkpoint that can be read, where `cut` has not found them whole.

        Return how many they are, and where what was there is kept.
        """
        content = self.path.read_bytes()
        aside, number = self.path.with_name(f"{self.path.name}.corrupt"), 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{self.path.name}.corrupt{number}")
        aside.write_bytes(content)
        lines = content[: mark.length].splitlines(keepends=True)
        read = [(line, _read(line)) for line in lines if line.endswith(b"\n")]
        kept = [line for line, found in read if found is not None and found["step"] <= step]
        self.file.close()
        files.write_text(self.path, b"".join(kept).decode())
        self.file = self.path.open("ab", buffering=0)
        self._hash = hashlib.sha256(b"".join(kept))
        return len(kept), aside

    def close(self) -> None:
        self.file.close()


class NoLines:
    """The lines of a process that writes none: the main one of its run does."""

    def append(self, values: Mapping[str, object]) -> None:
        """Add nothing."""

    def durable(self) -> Mark:
        return Mark(0, None)

    def cut(self, mark: Mark) -> bool:
        return True

    def salvage(self, mark: Mark, step: int) -> tuple[int, Path]:
        raise AssertionError("nothing is lost where nothing is written")

    def close(self) -> None:
        """There is nothing open."""


def opened(folder: Path | None, name: str) -> Lines | NoLines:
    """Return `NAME.jsonl` of a run's folder to grow; of a process without one what grows nowhere."""
    return NoLines() if folder is None else Lines(folder / f"{name}.jsonl")


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and (value != value or value in (float("inf"), -float("inf")))
