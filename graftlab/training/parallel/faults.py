"""An error of one process, told to the others: each raises its twin."""

import traceback

from graftlab import errors
from graftlab.errors import GraftlabError, Stopped


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


def described(error: Exception) -> tuple[str, str, int | None, str]:
    trace = "".join(traceback.format_exception(error))
    return type(error).__name__, str(error), getattr(error, "exit_code", None), trace


def twin(rank: int, name: str, message: str, exit_code: int | None, trace: str) -> Exception:
    """Return the error of process `rank` as this process raises it, with its traceback as a note."""
    kind = getattr(errors, name, ProcessError if name == ProcessError.__name__ else None)
    made: Exception
    if kind is Stopped:
        assert exit_code is not None
        made = Stopped(message, exit_code)
    elif kind is None:
        made = Elsewhere(f"{name}: {message} (in process {rank})")
    else:
        made = kind(f"{message} (in process {rank})")
    made.add_note(f"In process {rank}:\n{trace}")
    return made
