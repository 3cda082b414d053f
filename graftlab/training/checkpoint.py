"""Checkpoints that survive: written beside, hashed, renamed; verified before anything is loaded.

`checkpoints/step-000120/` holds `<group>.safetensors` for each group of tensors, `state.json` for all else,
and `manifest.json`, written last, with a sha256 for each of them. No pickle.
"""

import logging
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Note
from graftlab.errors import NEW, OUT, Argument, CheckpointError, DiskError
from graftlab.rundir import files, manifest
from graftlab.rundir.records import Json
from graftlab.training.state_file import Kept

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("graftlab")

FORMAT = 1
MANIFEST = manifest.NAME
INEXACT = Argument("allow_inexact", True)
PATTERN = re.compile(r"step-(\d{6,})")
TENSOR = "__tensor__"
NEEDED = ("state.json", "trainable.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What one folder holds, verified."""

    step: int
    tensors: "Mapping[str, Mapping[str, Tensor]]"
    """By group: `trainable`, `optimizer`, `hooks`, ..."""
    state: Kept


@dataclass
class Found:
    """The checkpoint to go on from, and what was wrong with newer ones."""

    path: Path | None = None
    problems: list[Note] = field(default_factory=list)
    inexact: Note | None = None
    """What `path` lacks, where it is good for its weights only."""
    damaged: frozenset[str] = frozenset()
    """The files of `path` that are not to be read."""


def pack(value: object, tensors: "dict[str, Tensor]", path: str = "") -> Json:
    """Return `value` as JSON; each tensor moves into `tensors` and leaves its name there."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {TENSOR: path}
    if isinstance(value, Mapping):
        assert all(isinstance(key, str) for key in value), f"a key that is no string in {path!r}"
        return {k: pack(v, tensors, f"{path}/{k}" if path else k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [pack(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]
    assert value is None or isinstance(value, bool | int | float | str), (path, type(value))
    return value


def unpack(value: object, tensors: "Mapping[str, Tensor]") -> Any:
    """Return what `pack` was given; tuples come back as lists."""
    if isinstance(value, Mapping):
        if set(value) == {TENSOR}:
            return tensors[value[TENSOR]]
        return {k: unpack(v, tensors) for k, v in value.items()}
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    return value


def name(step: int) -> str:
    return f"step-{step:06d}"


def steps(folder: Path) -> list[int]:
    """Return the steps of the complete-looking checkpoints, lowest first; foreign names are ignored."""
    if not folder.is_dir():
        return []
    found = [(PATTERN.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(int(match[1]) for match, path in found if match and path.is_dir())


def save(
    folder: Path, step: int, tensors: "Mapping[str, Mapping[str, Tensor]]", state: Kept
) -> Path:
    """Write one checkpoint atomically, in the place of one of the same step, and return its folder.

    Raises:
        DiskError: no room or no permission; what was there before is untouched.
    """
    target = folder / name(step)
    partial = folder / (target.name + files.PARTIAL)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for group, values in tensors.items():
            files.save_tensors(partial / f"{group}.safetensors", values)
        files.write_json(partial / "state.json", {"format": FORMAT, "step": step, **state})
        sums = {path.name: files.sha256(path) for path in sorted(partial.iterdir())}
        files.write_json(partial / MANIFEST, {"format": FORMAT, "step": step, "sha256": sums})
        old = target.with_name(target.name + ".old")
        if target.exists():  # saved on a signal, and again once its evaluation was done
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        files.sync(folder)
        files.write_text(folder / "latest", target.name + "\n")
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) or files.trouble(error):
            raise DiskError(
                f"cannot write the checkpoint of step {step} in {folder}: {error}. "
                f"{files.trouble(error) or 'Look at the folder'}, then go on with "
                f"`graftlab resume`; the checkpoints before it are untouched.",
                kind="unwritable",
            ) from error
        raise
    return target


def save_with_room(
    folder: Path,
    step: int,
    tensors: "Mapping[str, Mapping[str, Tensor]]",
    state: Kept,
    pinned: set[int],
) -> Path:
    """Do as `save`; where the disk is full, delete the oldest checkpoint that is not pinned and try again.

    Raises:
        DiskError: no room, even where the oldest one has made some.
    """
    try:
        return save(folder, step, tensors, state)
    except DiskError as error:
        if not make_room(folder, pinned):
            raise
        log.warning("%s The oldest checkpoint was deleted for another try.", error)
        return save(folder, step, tensors, state)


def damage(path: Path) -> dict[str, str]:
    """Return the files of a checkpoint that are not as they were written, with kinds of `manifest.DAMAGE`."""
    try:
        found = files.read_json(path / MANIFEST)
        sums = dict(found["sha256"])
        written = int(found["format"])
    except FileNotFoundError:
        return {MANIFEST: "missing"}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {MANIFEST: "unreadable"}
    if written > FORMAT:
        return {MANIFEST: "newer"}
    found = {
        file: manifest.difference(path / file, sums.get(file)) for file in sorted({*sums, *NEEDED})
    }
    return {file: what for file, what in found.items() if what}


def find(folder: Path, allow_inexact: bool = False) -> Found:
    """Return the newest checkpoint that verifies; newer ones that do not are renamed `*.corrupt`.

    With `allow_inexact` and no good one, the newest whose weights can be read. Nothing is deleted.

    Raises:
        CheckpointError: there are checkpoints, and none can be used.
    """
    found = Found()
    bad: list[tuple[Path, dict[str, str]]] = []
    for step in reversed(steps(folder)):
        path = folder / name(step)
        if not (wrong := damage(path)):
            found.path = path
            break
        bad.append((path, wrong))
    if found.path is None and bad:
        usable = [item for item in bad if allow_inexact and _weights(item[0])]
        if not usable:
            raise CheckpointError(
                f"no checkpoint in {folder} can be used:\n  "
                + "\n  ".join(str(damaged(path, wrong)) for path, wrong in bad)
                + "\nNothing was deleted.",
                ("Weights that can be read are gone on from without the rest with ", INEXACT, "."),
                ("Or `graftlab run` its config.yaml again with ", NEW, "."),
                kind="damaged",
            )
        found.path, wrong = usable[0]
        found.inexact, found.damaged = damaged(found.path, wrong), frozenset(wrong)
        return found
    found.problems = [_set_aside(path, wrong) for path, wrong in bad]
    if found.path is not None:
        files.write_text(folder / "latest", found.path.name + "\n")
    return found


def damaged(path: Path, wrong: Mapping[str, str]) -> Note:
    """Return a note of what `damage` has found."""
    return Note.of("checkpoint_damaged", checkpoint=path.name, files=dict(wrong))


def _weights(path: Path) -> bool:
    """Return whether a checkpoint's state and weights can be read, whatever else is missing."""
    wrong = damage(path)
    if any(file in NEEDED for file in wrong) or "newer" in wrong.values():
        return False
    try:
        return "trainable" in load(path, wrong).tensors
    except Exception:
        return False  # without a manifest they may be damaged in any way at all


def _set_aside(path: Path, wrong: Mapping[str, str]) -> Note:
    aside, number = path.with_name(path.name + ".corrupt"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt{number}")
    path.rename(aside)
    told = {"checkpoint": path.name, "files": dict(wrong), "aside": aside.name}
    return Note.of("checkpoint_set_aside", **told)


def load(path: Path, damaged: Collection[str] = ()) -> Checkpoint:
    """Read a checkpoint that `find` returned, but for the files that are damaged in it."""
    state = files.read_json(path / "state.json")
    sound = [p for p in sorted(path.glob("*.safetensors")) if p.name not in damaged]
    tensors = {p.stem: files.load_tensors(p) for p in sound}
    return Checkpoint(state["step"], tensors, state)


def rotate(folder: Path, keep: int, pinned: set[int]) -> None:
    """Delete all but the `keep` newest checkpoints and those that are pinned (step 0, the best)."""
    others = [step for step in steps(folder) if step not in pinned]
    for step in others[: max(0, len(others) - keep)]:
        path = folder / name(step)
        doomed = path.with_name(path.name + ".old")  # half a checkpoint is never seen
        path.rename(doomed)
        shutil.rmtree(doomed)
    for leftover in [*folder.glob("step-*.old"), *folder.glob(f"step-*{files.PARTIAL}")]:
        shutil.rmtree(leftover, ignore_errors=True)


def make_room(folder: Path, pinned: set[int]) -> bool:
    """Delete the oldest checkpoint that is neither the newest nor pinned; return whether there was one."""
    *older, _ = steps(folder) or [0]
    spare = [step for step in older if step not in pinned]
    if spare:
        shutil.rmtree(folder / name(spare[0]))
    return bool(spare)


def check_room(folder: Path, size: int, keep: int) -> None:
    """Say before the first step whether the disk has room for the checkpoints to come.

    `size` is the bytes of one; `keep` stand there at a time, with the best, and one is written beside.

    Raises:
        DiskError: not even one of them fits.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskError(
            f"{folder} has {_size(free)} left; one checkpoint takes {_size(size)}.",
            ("Free some room, or give another disk: ", OUT, ", or paths.runs."),
            kind="disk_full",
        )
    if free < (keep + 2) * size:
        log.warning(
            "%s has %.0f MiB left; checkpoints will take up to %.0f MiB",
            folder,
            free / 2**20,
            (keep + 2) * size / 2**20,
        )


def _size(count: int) -> str:
    """Return bytes in words: of a small disk they are not rounded to nothing."""
    return f"{count / 2**20:,.0f} MiB" if count >= 10 * 2**20 else f"{count / 2**10:,.0f} KiB"
