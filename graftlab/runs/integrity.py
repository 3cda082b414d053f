"""Whether what a run has left is whole: refused by name where it is not, and said where nobody can tell."""

import logging
from collections.abc import Mapping

from graftlab.contracts import Note
from graftlab.errors import GraftlabError
from graftlab.rundir import files, manifest
from graftlab.rundir.lines import Mark
from graftlab.rundir.run import Run
from graftlab.runs import identity

log = logging.getLogger("graftlab")


def check_adapter(run: Run) -> None:
    """Refuse an adapter that is not as it was written.

    Raises:
        CheckpointError, ModelError: as `Run.check_adapter`.
    """
    if not run.check_adapter():
        log.warning("%s", Note.of("no_manifest", folder=str(run.adapter_folder)))


def check(run: Run) -> None:
    """Refuse a finished run of which a file is not as it was written, or an adapter that is of no use.

    Raises:
        CheckpointError, ModelError: as `Run.check_adapter`; or a number in the adapter is not finite.
    """
    run.check()
    check_adapter(run)
    for path in sorted(run.adapter_folder.glob("*.safetensors")):
        files.read_weights(path)


def tell_changes(run: Run, config: Mapping[str, object]) -> None:
    """Say what of a run is not as it was left, or of an unfinished one as its newest checkpoint knows it."""
    if run.finished:
        if manifest.read(run.path) is None:
            log.warning("%s", Note.of("no_manifest", folder=str(run.path)))
        return
    try:
        identity.check_unfinished(run, config)
    except GraftlabError as error:
        log.warning("%s", error)
    state = identity.newest(run) or {}
    for name in ("metrics", "timing", *state.get("tables", ())):
        path, mark = run.path / f"{name}.jsonl", Mark.of(name, state)
        if mark and not mark.fits(path):
            log.warning("%s", manifest.fault(path, "changed", ()).words().strip())
