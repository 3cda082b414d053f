"""One run, from its file to its directory: where it goes, begun or gone on with."""

import contextlib
import logging
from dataclasses import replace
from pathlib import Path

from graftlab import config, runfile
from graftlab.errors import ANOTHER, LOGGED, ConfigError, DiskError, GraftlabError
from graftlab.rundir import files
from graftlab.rundir.run import BESIDE, Run
from graftlab.runfile import RunFile
from graftlab.runs import material, status, trials
from graftlab.runs.execution import Execution, Options
from graftlab.training import checkpoint
from graftlab.training.parallel import launch
from graftlab.training.parallel.processes import Processes
from graftlab.training.progress import log_to, silent
from graftlab.training.signals import Signals

__all__ = ["Options", "directory", "resume", "run"]

log = logging.getLogger("graftlab")
DEFAULT = Options()


def directory(file: RunFile, out: Path | None = None, new: bool = False) -> Path:
    """Return where a run goes: `out`, or the run file's name under paths.runs; with `new` a free one.

    Raises:
        ConfigError: something is there already; it is never written over.
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
    if run.started or checkpoint.steps(run.checkpoints):
        raise ConfigError(
            f"{path} holds a run that did not finish.",
            (f"Go on with it by `graftlab resume {path}`.",),
            BESIDE,
            kind="not_finished",
            given=str(path),
        )
    if not run.empty:
        raise ConfigError(f"{path} is there and is no run.", BESIDE, kind="taken", given=str(path))
    return path


def run(
    file: RunFile, out: Path | None = None, new: bool = False, options: Options = DEFAULT
) -> Run:
    """Carry out a run file from its start and return the finished run.

    Where several processes were launched, all of them call this, and it returns in each.

    Raises:
        GraftlabError: what the user can fix; the run directory then holds all that was done so far.
    """
    processes = launch.join()
    with processes.together():
        material.check_code(file)
        _check_sharding(file, processes)
        made = Run(processes.on_main(lambda: directory(file, out, new)))
        tried = processes.on_main(lambda: trials.of_fields(file))
        file = replace(file, notes=(*file.notes, *tried))
        _carry_out(made, file, options, processes, begin_with=config.dump(file.resolved))
    return made


def resume(path: Path, options: Options = DEFAULT) -> Run:
    """Go on with a run from its last good checkpoint, or from the start where it has none.

    Raises:
        ConfigError: this is no run.
        Refused: a function of another package makes its rows, and that has not been allowed.
    """
    processes = launch.join()
    found = Run(path)
    with processes.together():
        if not found.started:
            raise ConfigError(f"{path} is no run directory: it has no config.yaml.")
        if processes.on_main(lambda: found.finished):
            log.info("%s is finished already; run its config.yaml anew to train longer", path)
        else:
            file = runfile.began_with(found)
            material.check_code(file)
            _check_sharding(file, processes)
            _carry_out(found, file, options, processes)
    return found


def _check_sharding(file: RunFile, processes: Processes) -> None:
    steers = file.method.module.PROMISES.steers or bool(file.hooks)
    quantized = getattr(file.backbone.config, "quantization", None) is not None
    processes.sharding.check(file.training, steers, quantized)


def _carry_out(
    run: Run,
    file: RunFile,
    options: Options,
    processes: Processes,
    begin_with: str | None = None,
) -> None:
    signals = Signals()
    main = processes.main
    lock = run.lock() if main else contextlib.nullcontext()
    told = log_to(run.log) if main else silent()  # what all have to say, the main one says
    with lock, signals.caught(), told:
        try:
            if main and begin_with is not None:
                run.begin(begin_with)
            for note in file.notes:
                log.warning("%s", note)
            Execution(run, file, options, signals, processes).carry_out()
        except GraftlabError as error:
            log.error("%s: %s", type(error).__name__, error, exc_info=True)
            raise
        except Exception as error:
            if advice := files.trouble(error):
                message = (
                    f"cannot write in {run.path}: {error}. {advice}, then go on with "
                    f"`graftlab resume {run.path}`; the last checkpoint is untouched."
                )
                log.exception(message)
                raise DiskError(message) from error
            log.exception(f"{status.BUG} or in a package that it uses")
            error.add_note(f"{LOGGED}{run.log}.")
            raise
