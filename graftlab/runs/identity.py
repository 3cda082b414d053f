"""Whether a run is gone on with as it began: the same config, data, weights and environment."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from graftlab.contracts import Note, written
from graftlab.errors import (
    NEW,
    Argument,
    CheckpointError,
    ConfigError,
    DataError,
    Fault,
    ModelError,
    Place,
    Words,
)
from graftlab.rundir import files, provenance
from graftlab.rundir.run import Run
from graftlab.training.parallel.processes import Processes

log = logging.getLogger("graftlab")

AGAIN: Words = ("Put it back, or `graftlab run` its config.yaml again with ", NEW, ".")
# What may differ from the checkpoint's config without changing a bit of the adapter.
HARMLESS = (
    "name",
    "tracking",
    "paths",
    "training.keep_checkpoints",
    "training.workers",
    "training.save_every",
)
# Parts of environment.json that change bits where they differ.
ENVIRONMENT = (
    *("packages", "python", "platform", "device", "threads", "processes", "sharding"),
    *("graftlab", "peft"),
)


def compare_config(
    before: Mapping[str, object], now: Mapping[str, object], override: Sequence[str]
) -> list[Note]:
    """Return what was changed on purpose (the keys in `override`), as reasons why a run is not exact.

    Raises:
        ConfigError: something else was changed that is not harmless.
    """
    overridden, harmful = [], []
    for changed in provenance.differences(before, now):
        if is_harmless(changed.key):
            log.warning("changed since the checkpoint: %s", changed)
        elif changed.key in override:
            overridden.append(Note.of("config_changed", **changed._asdict()))
        else:
            harmful.append(changed)
    if harmful:
        raise ConfigError([_refused(changed) for changed in harmful])
    return overridden


def _refused(changed: provenance.Difference) -> Fault:
    override = Argument("override", (changed.key,))
    return Fault(
        f"config.yaml is not what the checkpoint was made with: {changed}.",
        kind="changed",
        place=Place(key=(changed.key,)),
        given=changed.now,
        allowed=changed.before,
        remedies=(("Put it back, or go on with the change by ", override, "."),),
    )


def is_harmless(key: str) -> bool:
    """Say whether a key may differ without changing a bit of the adapter."""
    return any(key == section or key.startswith(f"{section}.") for section in HARMLESS)


def remember(run: Run, now: dict[str, Any], step: int | None) -> list[Note]:
    """Write environment.json, or compare with it where the run goes on from `step`; return what changed.

    Raises:
        CheckpointError: the run's environment.json is gone or damaged.
        DataError: the data are not those the run began with.
        ModelError: the backbone's weights are not.
    """
    if step is None:
        files.write_json(run.environment, now)
        return []
    before = {"sharding": "whole"} | _read(run)
    _same_inputs(before, now)
    notes = [
        Note.of("environment_changed", **changed._asdict())
        for key in ENVIRONMENT
        for changed in provenance.differences({key: before[key]}, {key: now[key]})
    ]
    for note in notes:
        log.warning("not the environment that the run began in: %s", note)
    before.setdefault("resumes", []).append({"step": step, "changed": written(notes)})
    files.write_json(run.environment, before)
    return notes


def compare_processes(
    now: Mapping[str, Any], config: Mapping[str, Any], processes: Processes
) -> None:
    """Make sure that all processes of a run train the same.

    Raises:
        DataError: they do not see the same data, weights and run file.
    """
    seen = [now["data"].get("fingerprint"), now["backbone"].get("sha256"), dict(config)]
    if any(others != seen for others in processes.gather(seen)):
        raise DataError(
            "the processes of this run do not see the same data, weights and run file: give all "
            "machines the same files, at the same places"
        )


def _read(run: Run) -> dict[str, Any]:
    try:
        before: dict[str, Any] = files.read_json(run.environment)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{run.environment} cannot be read ({error}); it says with which data and weights the run began.",
            AGAIN,
            kind="unreadable",
        ) from error
    return before


def _same_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = before["data"].get("fingerprint"), now["data"].get("fingerprint")
    if old != new:
        raise DataError(
            f"the data have changed since the run began (fingerprint {new}, was {old}).",
            AGAIN,
            kind="changed",
            given=new,
            allowed=old,
        )
    old, new = (r["backbone"].get("sha256") for r in (before, now))
    if old != new:
        raise ModelError(
            f"the backbone's weights have changed since the run began (sha256 {new}, was {old}).",
            ("Pin backbone.revision where they come from the hub.",),
            AGAIN,
            kind="changed",
            given=new,
            allowed=old,
        )
