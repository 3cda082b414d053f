"""Whether a run is gone on with as it began: the same config, data, weights and environment."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    nearest,
)
from graftlab.rundir import files, manifest, provenance
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile
from graftlab.runs import origin
from graftlab.runs.material import Material
from graftlab.training import checkpoint
from graftlab.training.checkpoint import Checkpoint
from graftlab.training.parallel.processes import Processes

if TYPE_CHECKING:
    import torch

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
        ConfigError: something else was changed that is not harmless, or a key in `override` is none.
    """
    _check_keys(override, {*provenance.keys(before), *provenance.keys(now)})
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


def _check_keys(override: Sequence[str], known: Collection[str]) -> None:
    """Raise a ConfigError for a key that config.yaml does not have."""
    for key in override:
        if key not in known:
            close = nearest(key, known)
            raise ConfigError(
                f"config.yaml has no such key.{f' Did you mean {close!r}?' if close else ''}",
                place=Place(argument=Argument("override", (key,))),
                kind="unknown",
                given=key,
            )


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


def record(
    file: RunFile, run: Run, loaded: Material, device: "torch.device", processes: Processes
) -> dict[str, Any]:
    """Return what environment.json says of a run: the machine, what trains there, its rows and backbone."""
    now: dict[str, Any] = {
        **provenance.record(device),
        "seed": file.seed,
        "processes": processes.share.world,
        "sharding": processes.sharding.name,
        "deterministic": file.deterministic,
        "data": loaded.record,
        "backbone": dict(loaded.backbone.record),
    }
    if came := origin.record(file, run.environment):
        now["origin"] = came
    return now


def remember(run: Run, now: dict[str, Any], saved: Checkpoint | None) -> list[Note]:
    """Write environment.json, or compare with it where the run goes on; return what has changed.

    Raises:
        CheckpointError: the run's environment.json is gone or damaged.
        DataError: the data are not those the run began with.
        ModelError: the backbone's weights are not.
    """
    if saved is None:
        files.write_json(run.environment, now)
        return []
    before = {"sharding": "whole"} | run.read_environment()
    _same_inputs(before, now)
    check_record(run, before, saved.state)
    notes = [
        Note.of("environment_changed", **changed._asdict())
        for key in ENVIRONMENT
        for changed in provenance.differences({key: before.get(key)}, {key: now[key]})
    ]
    for note in notes:
        log.warning("not the environment that the run began in: %s", note)
    resumes = [*before.get("resumes", ()), {"step": saved.step, "changed": written(notes)}]
    files.write_json(run.environment, {**before, "resumes": resumes})
    return notes


def summed(run: Run) -> dict[str, Any]:
    """Return what a checkpoint keeps of environment.json: how often the run was resumed, and a hash."""
    record = run.read_environment()
    return _summed(record, len(record.get("resumes", ())))


def _summed(record: Mapping[str, Any], resumes: int) -> dict[str, Any]:
    """Return the hash of what no resume changes, and of the first so many resumes."""
    lasting = {key: record.get(key) for key in ("data", "backbone", "seed", "deterministic")}
    lasting["resumes"] = list(record.get("resumes", ()))[:resumes]
    text = json.dumps(lasting, sort_keys=True)
    return {"resumes": resumes, "sha256": manifest.hash_of(text.encode())}


def check_record(run: Run, record: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Refuse an environment.json that is not what a checkpoint's state knows of it.

    Raises:
        CheckpointError: it has changed since.
    """
    known = state.get("environment")  # older checkpoints know nothing of it
    if known and _summed(record, known["resumes"]) != known:
        raise CheckpointError(manifest.fault(run.environment, "changed", AGAIN))


def check_unfinished(run: Run, config: Mapping[str, object]) -> None:
    """Refuse an unfinished run whose config.yaml or environment.json is not what its newest sound checkpoint,
    if it has one, was made with.

    Raises:
        CheckpointError, ConfigError: it has changed since.
    """
    if (state := newest(run)) is not None:
        compare_config(state["config"], config, ())
        check_record(run, run.read_environment(), state)


def newest(run: Run) -> Mapping[str, Any] | None:
    """Return what the newest sound checkpoint of a run knows of it; None where there is none."""
    for step in reversed(checkpoint.steps(run.checkpoints)):
        path = run.checkpoints / checkpoint.name(step)
        if not checkpoint.damage(path):
            state: Mapping[str, Any] = files.read_json(path / "state.json")
            return state
    return None


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


def compare_data(wanted: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Make sure that rows are those that another machine has read. `Raises:` DataError."""
    if record.get("fingerprint") != wanted:
        raise DataError(
            f"the data here are not those that the head has read (fingerprint {record.get('fingerprint')}, "
            f"there {wanted}): give all machines the same files, at the same places.",
            kind="changed", given=record.get("fingerprint"), allowed=wanted,
        )  # fmt: skip


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
