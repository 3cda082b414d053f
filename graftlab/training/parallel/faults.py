"""An error of one process, told to the others: each raises its twin."""

import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from graftlab import errors
from graftlab.errors import Fault, GraftlabError, Stopped


class ProcessError(GraftlabError):
    """Another process is gone, or has gone another way."""

    exit_code = 1


class Elsewhere(Exception):
    """A fault in another process that is no `GraftlabError`: a bug, or a disk."""


def connection_lost(error: Exception) -> bool:
    """Return whether this is what a collective raises when another process is gone."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


class Told(NamedTuple):
    """An error as one process tells it to the others."""

    name: str
    message: str
    problems: Sequence[Fault]
    """Of an error of ours."""
    exit_code: int | None
    trace: str


def described(error: Exception) -> Told:
    trace = "".join(traceback.format_exception(error))
    problems, code = getattr(error, "problems", ()), getattr(error, "exit_code", None)
    return Told(type(error).__name__, str(error), problems, code, trace)


def twin(rank: int, told: Told) -> Exception:
    """Return the error of process `rank` as this process raises it, with its traceback as a note."""
    name, where = told.name, f"(in process {rank})"
    kind = getattr(errors, name, ProcessError if name == ProcessError.__name__ else None)
    made: Exception
    if kind is Stopped:
        assert told.exit_code is not None
        made = Stopped(told.message, told.exit_code)
    elif kind is None:
        made = Elsewhere(f"{name}: {told.message} {where}")
    else:
        made = kind([replace(fault, said=f"{fault.said} {where}") for fault in told.problems])
    made.add_note(f"In process {rank}:\n{told.trace}")
    return made
