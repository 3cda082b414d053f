"""Errors that a user can cause and fix. Everything else is a bug and stays an `assert`.

Each says what, where (file:key, line or row) and what to do; `exit_code` is what the command returns.
"""

import difflib
from collections.abc import Iterable

LOGGED = "The full traceback is in "
"""What a note on an exception begins with (`add_note`) once it stands in a run's log: not shown again."""


class GraftlabError(Exception):
    """Base class: `except GraftlabError` catches what a user can fix."""

    exit_code = 2


class ConfigError(GraftlabError, ValueError):
    """A key or value of a run file, or a word on the command line, is unknown or out of range."""

    exit_code = 2


class DataError(GraftlabError):
    """A file, column, row or label of a task cannot be used."""

    exit_code = 3


class ModelError(GraftlabError):
    """A backbone, tokenizer or adapter cannot be found or loaded."""

    exit_code = 4


class OutOfMemory(GraftlabError):
    """One example alone does not fit."""

    exit_code = 5


class Diverged(GraftlabError):
    """Several steps in a row had a loss or gradient that is not finite."""

    exit_code = 6


class CheckpointError(GraftlabError):
    """No checkpoint of the run can be used."""

    exit_code = 7


class DiskError(GraftlabError):
    """A run directory cannot be written."""

    exit_code = 8


class Refused(GraftlabError):
    """Refused for security: pickles, loading scripts, remote code."""

    exit_code = 9


class StudyIncomplete(GraftlabError):
    """Some runs of a study failed; the others finished."""

    exit_code = 10


class Stopped(GraftlabError):
    """A signal ended the run after its state was saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # 130 SIGINT, 143 SIGTERM


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was probably meant to be, or None."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message that names the culprit, the closest valid name, and all the others."""
    known = sorted(known)
    close = nearest(name, known)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


def missing_extra(what: str, package: str, extra: str) -> str:
    """Return a message that names the extra which brings a package that is not installed."""
    return (
        f"{what} needs the package {package!r}. Install it with: pip install 'graftlab[{extra}]'."
    )
