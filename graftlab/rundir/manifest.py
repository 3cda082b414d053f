"""Which files a folder was left with, by their hashes: what is read later is what was written, or refused.

`manifest.json` holds `format`, `sha256` by file, and `seal`, the sha256 of that table, so that a manifest
that has changed is seen as well. PEFT and transformers pass it over.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from graftlab.errors import CheckpointError, Fault, GraftlabError, Place, Words
from graftlab.rundir import files

NAME = "manifest.json"
FORMAT = 1
DAMAGE = {
    "missing": "{file} is missing",
    "changed": "{file} has changed since it was written (its sha256 is another)",
    "unreadable": "{file} cannot be read",
    "newer": "{file} is of a newer version of graftlab",
    "unlisted": "{file} is not in manifest.json",
}
"""What may be wrong with a file, in words."""
PUT_BACK: Words = ("Put it back from a copy, or train again: `graftlab run` its config.yaml.",)


class Manifest(NamedTuple):
    """The hashes that a folder was left with, or what is wrong with them."""

    sums: Mapping[str, str]
    wrong: str | None = None
    """A kind of `DAMAGE`."""


def text(sums: Mapping[str, str]) -> str:
    """Return what a manifest of these hashes holds: the same bytes for the same files."""
    ordered = {name: sums[name] for name in sorted(sums)}
    return files.dump_json({"format": FORMAT, "sha256": ordered, "seal": seal(ordered)})


def seal(sums: Mapping[str, str]) -> str:
    """Return the hash of a table of hashes."""
    return hash_of(json.dumps(sums, sort_keys=True).encode())


def hash_of(content: bytes) -> str:
    """Return the hash of what a file will hold."""
    return hashlib.sha256(content).hexdigest()


def inside(folder: Path, without: Collection[str] = ()) -> list[str]:
    """Return the files of a folder, those of folders in it too, as a manifest names them."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != NAME and name not in without)


def write(folder: Path, names: Iterable[str], further: Mapping[str, str] | None = None) -> None:
    """Write the manifest of a folder in one move; `further` are hashes of files that are still to come."""
    sums = {name: files.sha256(folder / name) for name in names}
    files.write_text(folder / NAME, text({**sums, **(further or {})}))


def add(folder: Path, name: str) -> None:
    """Take one more file into the manifest of a folder, which has one."""
    known = read(folder)
    if known is not None and known.wrong is None:
        write(folder, [name], {n: s for n, s in known.sums.items() if n != name})


def read(folder: Path) -> Manifest | None:
    """Return the manifest of a folder; None where there is none."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if int(found["format"]) > FORMAT:
            return Manifest({}, "newer")
        sums = dict(found["sha256"])
        sound = found["seal"] == seal(sums) and all(map(_is_inside, sums))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sound, sums = False, {}
    return Manifest(sums) if sound else Manifest({}, "unreadable")


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def damage(folder: Path, names: Collection[str] = ()) -> dict[str, str] | None:
    """Return what is wrong with files of a folder, all unless named; None where it has no manifest."""
    known = read(folder)
    if known is None:
        return None
    if known.wrong:
        return {NAME: known.wrong}
    found = {name: difference(folder / name, known.sums.get(name)) for name in names or known.sums}
    return {name: what for name, what in found.items() if what}


def difference(path: Path, written: str | None) -> str | None:
    """Return what is wrong with a file that had the hash `written`; None of it where it was not listed."""
    if not path.is_file():
        return "missing"
    if written is None:
        return "unlisted"
    try:
        return None if files.sha256(path) == written else "changed"
    except OSError:
        return "unreadable"


def check(
    folder: Path,
    names: Collection[str] = (),
    error: type[GraftlabError] = CheckpointError,
    remedy: Words = PUT_BACK,
) -> bool:
    """Refuse files that are not as they were written; return whether there is a manifest to tell.

    Raises:
        GraftlabError: `error`, with a problem for each file.
    """
    found = damage(folder, names)
    if found:
        raise error([fault(folder / name, what, remedy) for name, what in found.items()])
    return found is not None


def check_content(folder: Path, name: str, content: bytes) -> None:
    """Refuse what a file holds, where the folder's manifest knows it otherwise.

    Raises:
        CheckpointError: with the problem.
    """
    known = read(folder)
    if known is None:
        return
    if known.wrong:
        raise CheckpointError([fault(folder / NAME, known.wrong)])
    if known.sums.get(name) != hash_of(content):
        raise CheckpointError(
            [fault(folder / name, "changed" if name in known.sums else "unlisted")]
        )


def fault(path: Path, what: str, remedy: Words = PUT_BACK, line: int | None = None) -> Fault:
    """Return what is wrong with one file, or a line of it; `what` is a kind of `DAMAGE`."""
    said = f"{DAMAGE[what].format(file='it')}."
    place = Place(str(path), line)
    return Fault(said, kind="damaged", place=place, given=what, remedies=(remedy,))
