"""Checkpoints that survive: written beside, hashed, renamed; verified before anything is loaded.

`checkpoints/step-000120/` holds `<group>.safetensors` for each group of tensors, `state.json` for all else,
and `manifest.json`, written last, with a sha256 for each of them. No pickle.
"""

import errno
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab import files
from graftlab.errors import CheckpointError, DiskError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
PATTERN = re.compile(r"step-(\d{6,})")
TENSOR = "__tensor__"


@dataclass(frozen=True)
class Checkpoint:
    """What one folder holds, verified."""

    step: int
    tensors: "Mapping[str, Mapping[str, Tensor]]"
    """By group: `trainable`, `optimizer`, `hooks`, ..."""
    state: Mapping[str, Any]


@dataclass
class Found:
    """The checkpoint to go on from, and what was wrong with newer ones."""

    path: Path | None = None
    problems: list[str] = field(default_factory=list)
    inexact: str | None = None
    """What `path` lacks, where it is good for its weights only."""


def pack(value: Any, tensors: "dict[str, Tensor]", path: str = "") -> Any:
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


def unpack(value: Any, tensors: "Mapping[str, Tensor]") -> Any:
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
    folder: Path, step: int, tensors: "Mapping[str, Mapping[str, Tensor]]", state: Mapping[str, Any]
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
        files.write_json(
            partial / "manifest.json", {"format": FORMAT, "step": step, "sha256": sums}
        )
        old = target.with_name(target.name + ".old")
        if target.exists():  # saved on a signal, and again once its evaluation was done
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        files.sync(folder)
        files.write_text(folder / "latest", target.name + "\n")
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        # safetensors reports a full disk as an error of its own, with the number in its text
        if isinstance(error, OSError) or "os error" in str(error).lower():
            full = getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error)
            raise DiskError(
                f"cannot write the checkpoint of step {step} in {folder}: {error}. "
                + ("Free some room" if full else "Make the folder writable")
                + ", then go on with `graftlab resume`; the checkpoints before it are untouched."
            ) from error
        raise
    return target


def problem(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None if every file has the hash of the manifest.

    Raises:
        CheckpointError: it was written by a newer graftlab.
    """
    try:
        manifest = files.read_json(path / "manifest.json")
        sums = dict(manifest["sha256"])
        written = int(manifest["format"])
    except FileNotFoundError:
        return "manifest.json is missing"
    except (ValueError, KeyError, TypeError, NotADirectoryError) as error:
        return f"manifest.json cannot be read ({error})"
    if written > FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {written}, this graftlab reads up to {FORMAT}. "
            f"Install the version that wrote it or a newer one."
        )
    for file, expected in sums.items():
        if not (path / file).is_file():
            return f"{file} is missing"
        if files.sha256(path / file) != expected:
            return f"{file} has changed since it was written (its sha256 is another)"
    return None


def find(folder: Path, allow_inexact: bool = False) -> Found:
    """Return the newest checkpoint that verifies; newer ones that do not are renamed `*.corrupt`.

    With `allow_inexact` and no good one, the newest whose weights can be read. Nothing is deleted.

    Raises:
        CheckpointError: there are checkpoints, and none can be used.
    """
    found = Found()
    bad: list[tuple[Path, str]] = []
    for step in reversed(steps(folder)):
        path = folder / name(step)
        wrong = problem(path)
        if wrong is None:
            found.path = path
            break
        bad.append((path, wrong))
    if found.path is None and bad:
        usable = [item for item in bad if allow_inexact and _weights(item[0])]
        if not usable:
            raise CheckpointError(
                f"no checkpoint in {folder} can be used:\n  "
                + "\n  ".join(f"{path.name}: {wrong}" for path, wrong in bad)
                + "\nNothing was deleted. `--allow-inexact` goes on from weights without the rest, "
                "where they can be read; `graftlab run RUN/config.yaml --new` starts again."
            )
        found.path, found.inexact = usable[0][0], f"{usable[0][0].name}: {usable[0][1]}"
        return found
    found.problems = [_set_aside(path, wrong) for path, wrong in bad]
    if found.path is not None:
        files.write_text(folder / "latest", found.path.name + "\n")
    return found


def _weights(path: Path) -> bool:
    """Return whether a checkpoint's state and weights can be read, whatever else is missing."""
    try:
        load(path)
        return (path / "trainable.safetensors").is_file()
    except Exception:
        return False  # any damage at all means no


def _set_aside(path: Path, wrong: str) -> str:
    aside, number = path.with_name(path.name + ".corrupt"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt{number}")
    path.rename(aside)
    return f"{path.name}: {wrong}; kept as {aside.name}"


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `find` returned."""
    state = files.read_json(path / "state.json")
    tensors = {p.stem: files.load_tensors(p) for p in sorted(path.glob("*.safetensors"))}
    return Checkpoint(state["step"], tensors, state)


def rotate(folder: Path, keep: int, pinned: set[int]) -> None:
    """Delete all but the `keep` newest checkpoints and those that are pinned (step 0, the best)."""
    others = [step for step in steps(folder) if step not in pinned]
    for step in others[: max(0, len(others) - keep)]:
        path = folder / name(step)
        doomed = path.with_name(
            path.name + ".old"
        )  # renamed first: half a checkpoint is never seen
        path.rename(doomed)
        shutil.rmtree(doomed)
    for leftover in folder.glob("step-*.old"):
        shutil.rmtree(leftover, ignore_errors=True)
