"""Errors that a user can cause and fix. Everything else is a bug and stays an `assert`.

An error carries problems, which are records: what is wrong, where (file, line and key, row, or argument of a
call), what was given and is allowed, and what to do. Words are made of them at the very end, for whoever
called: Python is told of `new=True`, the command line of `--new`. `exit_code` is what the command returns.
"""

from collections.abc import Sequence
from typing import Unpack

from graftlab.errors.fault import (
    ANOTHER,
    NEW,
    NOWHERE,
    OUT,
    Argument,
    Fault,
    Mended,
    Place,
    Placed,
    Spelling,
    Words,
    in_python,
    in_row,
    overriding,
    spelled,
    wrong,
)
from graftlab.errors.names import missing_extra, near_file, nearest, unknown

__all__ = [
    "ANOTHER", "LOGGED", "NEW", "NOWHERE", "OUT", "Argument", "CheckpointError", "ConfigError",
    "DataError", "DiskError", "Diverged", "Fault", "GraftlabError", "Mended", "ModelError",
    "OutOfMemory", "Place", "Refused", "SearchFailed", "Stopped", "StudyIncomplete",
    "Words", "in_python", "in_row", "missing_extra", "near_file", "nearest", "overriding",
    "spelled", "unknown", "wrong",
]  # fmt: skip

LOGGED = "The full traceback is in "
"""What a note on an exception begins with (`add_note`) once it stands in a run's log: not shown again."""


class GraftlabError(Exception):
    """Base class: `except GraftlabError` catches what a user can fix."""

    exit_code = 2
    problems: tuple[Fault, ...]

    def __init__(
        self, said: str | Fault | Sequence[Fault], *remedies: Words, **fields: Unpack[Placed]
    ) -> None:
        """Raise for a text, with what to do about it and further fields of `Fault`; or for problems."""
        if isinstance(said, str):
            self.problems = (Fault(said, remedies=remedies, **fields),)
        else:
            self.problems = (said,) if isinstance(said, Fault) else tuple(said)
        super().__init__(self.words())

    def at(self, place: Place) -> "GraftlabError":
        """Return the error with a place for what has none."""
        return type(self)([problem.at(place) for problem in self.problems])

    def words(self, spell: Spelling = in_python) -> str:
        """Say all of it, arguments spelled as `spell` does."""
        said = [problem.words(spell) for problem in self.problems]
        if len(said) == 1:
            return said[0]
        return "\n  ".join((f"{len(said)} problems:", *said))


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
    """No checkpoint of the run can be used, or a file of it is damaged."""

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


class SearchFailed(GraftlabError):
    """No trial of a search has ended by itself."""

    exit_code = 10


class Stopped(GraftlabError):
    """A signal ended the run after its state was saved."""

    def __init__(self, said: str, exit_code: int) -> None:
        super().__init__(said)
        self.exit_code = exit_code  # 130 SIGINT, 143 SIGTERM
