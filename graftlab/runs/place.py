"""Where a run goes: a folder that is free, one whose run had come to nothing, or one that is gone on with."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from graftlab import config
from graftlab.config.reread import reread
from graftlab.contracts import Note
from graftlab.errors import ANOTHER, Argument, ConfigError, Words
from graftlab.rundir import files, provenance
from graftlab.rundir.provenance import Difference
from graftlab.rundir.run import BESIDE, Run
from graftlab.runfile import RunFile
from graftlab.runs import found_labels, identity, status

MOST_KEYS = 12  # that a message names
REPLACED_LOG = "replaced.log"
"""The logs of runs that came to nothing, in the directory of the one that took their place."""


def directory(file: RunFile, out: Path | None = None, new: bool = False) -> Path:
    """Return where a run goes: `out`, or the run file's name under paths.runs; with `new` a free one.

    A run that ended before its first checkpoint does not stand in the way: `begin` takes it away.

    Raises:
        ConfigError: something of worth is there already; it is never written over.
    """
    wanted = path = out or file.paths.runs / file.name
    number = 1
    while new and path.exists():
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    run = Run(path)
    if run.finished:
        raise ConfigError(
            f"{path} holds a finished run. See it with `graftlab show {path}`.",
            BESIDE,
            kind="finished",
            given=str(path),
        )
    if holder := run.held_by():
        said = f"{path} is in use by {holder}."
        raise ConfigError(said, ANOTHER, kind="in_use", given=str(path))
    if has_trained(run):
        raise _not_finished(run, file)
    if not run.started and not run.empty:
        raise ConfigError(f"{path} is there and is no run.", BESIDE, kind="taken", given=str(path))
    return path


def has_trained(run: Run) -> bool:
    """Say whether a run has come to a checkpoint, good or damaged."""
    if not run.checkpoints.is_dir():
        return False
    return any(files.PARTIAL not in path.name for path in run.checkpoints.iterdir())


def changes(run: Run, file: RunFile) -> list[Difference]:
    """Return the keys in which a run file differs from the config.yaml of a run, but for harmless ones.

    Raises:
        ConfigError: config.yaml is gone or damaged.
    """
    before = found_labels.without(reread(run.config), run)
    found = provenance.differences(before, file.resolved)
    return [changed for changed in found if not identity.is_harmless(changed.key)]


def _not_finished(run: Run, file: RunFile) -> ConfigError:
    """Return the error for a place with checkpoints: what is other now, and what there is to do."""
    path = run.path
    try:
        changed = changes(run, file) if run.started else []
    except ConfigError:
        changed = []  # said by `resume`
    go_on: Words = (f"Go on with it by `graftlab resume {path}`.",)
    said = f"{path} holds a run that did not finish."
    if not changed:
        return ConfigError(said, go_on, BESIDE, kind="not_finished", given=str(path))
    named = [str(one) for one in changed[:MOST_KEYS]]
    named += [f"and {len(changed) - MOST_KEYS} more"] if len(changed) > MOST_KEYS else []
    override = Argument("override", tuple(one.key for one in changed))
    return ConfigError(
        f"{said} This file differs from its config.yaml in {', '.join(named)}.",
        (f"Go on with it as it was by `graftlab resume {path}`.",),
        ("Go on with it changed by ", override, "."),
        BESIDE,
        kind="not_finished",
        given=str(path),
        allowed=[one.key for one in changed],
    )


def begin(run: Run, file: RunFile) -> Note | None:
    """Write the resolved run file into the directory, which is locked; return what it took the place of.

    A run that ended before its first checkpoint is taken away, but for its log, which becomes `replaced.log`.

    Raises:
        ConfigError: another process has begun a run there in the meantime.
    """
    text = config.dump(file.resolved)
    if not is_free(run) or not run.started:
        run.begin(text)
        return None
    row = status.of_run(run)
    try:
        changed = [str(one) for one in changes(run, file)]
    except ConfigError:
        changed = ["config.yaml was damaged"]
    _clear(run)
    files.write_text(run.config, text)  # in one move: at no moment is the folder nobody's
    return Note.of(
        "run_replaced", folder=str(run.path), date=row.date, cause=row.cause, changed=changed
    )


def _clear(run: Run) -> None:
    """Take away what a run has left, but for its config, its log and what is not its own."""
    for path in (run.environment, run.model, run.metrics, run.timing):
        path.unlink(missing_ok=True)
    for folder in (run.checkpoints, run.selection, run.path / "predictions"):
        shutil.rmtree(folder, ignore_errors=True)
    (run.path / "predictions").mkdir()
    if run.log.is_file():
        with (run.path / REPLACED_LOG).open("ab") as kept:
            kept.write(run.log.read_bytes())
        run.log.unlink()


def go_on_with(file: RunFile, out: Path | None, override: Sequence[str]) -> Path:
    """Give a run that did not finish the keys of a run file that are to be other than before; return where.

    Raises:
        ConfigError: there is nothing to go on with, or other keys differ too.
    """
    run = Run(out or file.paths.runs / file.name)
    if run.finished or not (run.started and has_trained(run)):
        raise ConfigError(
            f"{run.path} holds no run to go on with.",
            ("Leave ", Argument("override"), " out."),
            kind="no_effect",
            given=str(run.path),
        )
    if any(one.key not in override for one in changes(run, file)):
        raise _not_finished(run, file)
    with run.lock():
        laid = found_labels.restored(file.resolved, reread(run.config), run)
        files.write_text(run.config, config.dump(laid))
    return run.path


def is_free(run: Run) -> bool:
    """Say whether a run may begin there: nothing is there, or what has come to nothing."""
    return run.empty or (run.started and not run.finished and not has_trained(run))
