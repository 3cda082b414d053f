"""How to repeat what a page shows: commands, versions, hashes, settings; and runs of other versions."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from graftlab.config.reread import reread
from graftlab.errors import CheckpointError, ConfigError
from graftlab.rundir.records import Json
from graftlab.rundir.run import Run
from graftlab.terminal import redact

HIDDEN = ("dirty_diff",)
"""What of a run's environment is too long for a page."""
APART = ("data", "backbone", "seed", "resumes", "origin", "found")
"""What of a run's environment belongs to the run and not to the machine."""
INSTALLED = ("torch", "transformers", "peft")
"""What decides about bytes beside graftlab."""
DATA = (
    *("data.fingerprint", "data.source", "data.revision", "data.sizes."),
    *("backbone.source", "backbone.revision", "backbone.sha256"),
)
"""What of the environment says which rows and which weights were used."""
CODE = ("packages.graftlab", "graftlab.commit")
MOST_RUNS = 500
"""Runs whose settings are listed; a page has to open, and runs.csv has them all."""
Flat = Mapping[str, str]


class Made(NamedTuple):
    """Of what, with what and where runs were made."""

    shared: dict[str, str]
    """Keys of config.yaml that have one value in all runs."""
    own: dict[str, dict[str, str]]
    """By run: what it has of its own."""
    unlisted: int
    """Runs that are not listed."""
    machine: dict[str, list[tuple[str, int]]]
    """Of each fact of the environment its values, the most frequent first, and how many runs had them."""
    data: dict[str, list[tuple[str, int]]]
    """Fingerprints and sizes of the data, hashes of the backbones' weights; likewise."""
    other_code: dict[str, str]
    """Runs of another version of graftlab than most, with which."""


def made(folders: Mapping[str, Path]) -> Made:
    """Return how runs were made; they are sound."""
    resolved = {
        name: dict(flatten(reread(Run(path).config)))
        for name, path in list(folders.items())[:MOST_RUNS]
        if Run(path).started
    }
    shared = _shared(resolved.values())
    environments = {
        name: run.read_environment()
        for name, path in folders.items()
        if (run := Run(path)).environment.is_file()
    }
    flat = {name: dict(flatten(found)) for name, found in environments.items()}
    machine = _counted(flat.values(), lambda key: key.partition(".")[0] not in APART)
    data = _counted(
        flat.values(),
        lambda key: key.startswith(DATA),
    )
    return Made(
        shared, {name: _own(values, shared) for name, values in resolved.items()},
        max(0, len(folders) - MOST_RUNS), machine, data, _other_code(flat),
    )  # fmt: skip


def sound(folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return the runs of which all that a page shows can be read; the others are holes with their cause."""
    return {name: path for name, path in folders.items() if _is_sound(Run(path))}


def _is_sound(run: Run) -> bool:
    try:
        run.check()
        run.read_metrics()
        if run.started:
            reread(run.config)
        if run.environment.is_file():
            run.read_environment()
    except (CheckpointError, ConfigError):
        return False
    return True


def installation(machine: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """Return the command that installs what most runs had; empty where that is not known.

    What was made with a clone is installed from one: `.` stands for it.
    """
    found = {name: machine.get(f"packages.{name}") for name in ("graftlab", *INSTALLED)}
    pins = {name: f"{name}=={v[0][0].partition('+')[0]}" for name, v in found.items() if v}
    if commit(machine):
        pins = {"graftlab": "."} | {name: pin for name, pin in pins.items() if name in INSTALLED}
    return f"pip install {' '.join(pins.values())}" if pins else ""


def commit(machine: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """Return the commit that most runs were made with, and whether there were changes beside it."""
    found = machine.get("graftlab.commit")
    if not found or found[0][0] == "null":
        return ""
    dirty = machine.get("graftlab.dirty_sha256", [("null", 0)])[0][0] != "null"
    return found[0][0] + (" with uncommitted changes" if dirty else "")


def file_text(path: Path) -> str:
    """Return a file as a page shows it, without secrets; empty where there is none."""
    try:
        return redact(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def flatten(values: Mapping[str, Json], above: str = "") -> Iterable[tuple[str, str]]:
    """Yield each value with its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{above}{key}.")
        elif key not in HIDDEN:
            yield f"{above}{key}", "null" if value is None else str(value)


def _shared(resolved: Iterable[Flat]) -> dict[str, str]:
    every = list(resolved)
    first = every[0] if every else {}
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in every)}


def _own(values: Flat, shared: Flat) -> dict[str, str]:
    return {key: value for key, value in values.items() if key not in shared and key != "name"}


def _counted(
    every: Iterable[Flat], wanted: Callable[[str], bool]
) -> dict[str, list[tuple[str, int]]]:
    counted: dict[str, Counter[str]] = {}
    for found in every:
        for key, value in found.items():
            if wanted(key):
                counted.setdefault(key, Counter())[value] += 1
    return {key: values.most_common() for key, values in counted.items()}


def _other_code(flat: Mapping[str, Flat]) -> dict[str, str]:
    """Return the runs whose code is not that of most, with what theirs was."""
    codes = {
        name: " ".join(found.get(key, "unknown") for key in CODE) for name, found in flat.items()
    }
    usual = Counter(codes.values()).most_common(1)
    return {name: code for name, code in codes.items() if code != usual[0][0]} if usual else {}
