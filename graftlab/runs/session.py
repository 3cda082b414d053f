"""One run, from its file to its directory: where it goes, begun or gone on with."""

import contextlib
import logging
from dataclasses import replace
from pathlib import Path

from graftlab import config, runfile
from graftlab.contracts import NOTED
from graftlab.errors import LOGGED, ConfigError, DiskError, GraftlabError
from graftlab.rundir import files, limits
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile, checks
from graftlab.runs import material, place, status, trials
from graftlab.runs.execution import Execution
from graftlab.runs.options import Options
from graftlab.runs.place import directory
from graftlab.training.parallel import launch
from graftlab.training.parallel.processes import Processes
from graftlab.training.progress import log_to, silent
from graftlab.training.signals import Signals

__all__ = ["Options", "directory", "resume", "run"]

log = logging.getLogger("graftlab")
DEFAULT = Options()


def run(
    file: RunFile, out: Path | None = None, new: bool = False, options: Options = DEFAULT
) -> Run:
    """Carry out a run file from its start and return the finished run.

    With `options.override`, go on with the run that is there, these keys as the file has them. Where several
    processes were launched, all of them call this, and it returns in each.

    Raises:
        GraftlabError: what the user can fix; the run directory then holds all that was done so far.
    """
    processes = launch.join()
    with processes.together(), config.placed(file.document):
        material.check_code(file)
        _check_sharding(file, processes)
        if options.override:
            there = processes.on_main(lambda: place.go_on_with(file, out, options.override))
            _carry_out(Run(there), runfile.began_with(Run(there)), options, processes)
            return Run(there)
        made = Run(processes.on_main(lambda: directory(file, out, new)))
        tried = processes.on_main(lambda: trials.of_fields(file))
        file = replace(file, notes=(*file.notes, *tried))
        _carry_out(made, file, options, processes, anew=True)
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
            raise ConfigError(f"{path} is no run directory: it has no config.yaml.", kind="no_run")
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
    anew: bool = False,
) -> None:
    signals = Signals(run.path)
    main = processes.main
    lock = run.lock() if main else contextlib.nullcontext()
    told = log_to(run.log) if main else silent()  # what all have to say, the main one says
    with lock, signals.caught(), told:
        try:
            if main and anew:
                replaced = place.begin(run, file)
                file = replace(file, notes=(*file.notes, *([replaced] if replaced else [])))
            for note in (*file.notes, *checks.slow_formats(file)):
                log.warning("%s", note, extra=NOTED)
            Execution(run, file, options, signals, processes).carry_out()
        except GraftlabError as error:
            log.error("%s: %s", type(error).__name__, error, exc_info=True)
            raise
        except Exception as error:
            if short := limits.exceeded(error):
                log.exception("%s", short)
                raise short from error
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
