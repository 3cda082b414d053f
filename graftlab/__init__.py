"""graftlab trains, compares and explains parameter-efficient adapters on frozen models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftlab.inference import Adapted
    from graftlab.rundir.run import Run

__version__ = "0.1.0"


def run(
    file: str | Path,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    new: bool = False,
    allow_code: bool = False,
) -> "Run":
    """Carry out a run file, or a shipped recipe by its name, and return the finished run.

    `overrides` are `key.key=value`, as in `training.epochs=3`. `run.read_result()` holds the scores. With
    `allow_code` the function that `task.source` names and the programs of `task.execute_code` may run.

    Raises:
        graftlab.errors.GraftlabError: what the user can fix; see `exit_code` and the message.
    """
    from graftlab import config, runfile
    from graftlab.data import foreign_code
    from graftlab.runs import session

    resolved = runfile.resolve(config.read(file, overrides))
    with foreign_code.allowed(allow_code):
        return session.run(resolved, Path(out) if out is not None else None, new)


def load(
    path: str | Path,
    device: str | None = None,
    step: int | None = None,
    allow_code: bool = False,
) -> "Adapted":
    """Return the adapted model of a finished run: `load(path).predict(["a text"])`.

    `device` is a GPU where there is one, unless given. With `step` it is the model as it was at that step,
    whose checkpoint the run has kept. With `allow_code` its rows may be made by a function of another package
    that the run's file names, where `evaluate` reads them again.

    Raises:
        graftlab.errors.GraftlabError: no run, or its backbone cannot be had.
    """
    from graftlab import inference

    return inference.load(path, device, step, allow_code)
