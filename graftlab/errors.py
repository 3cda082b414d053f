"""Errors that a user can cause and fix. Everything else is a bug and stays an `assert`.

An error carries problems, which are records: what is wrong, where (file, line and key, row, or argument of a
call), what was given and is allowed, and what to do. Words are made of them at the very end, for whoever
called: Python is told of `new=True`, the command line of `--new`. `exit_code` is what the command returns.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

LOGGED = "The full traceback is in "
"""What a note on an exception begins with (`add_note`) once it stands in a run's log: not shown again."""


@dataclass(frozen=True)
class Argument:
    """An argument of a call that words speak of, with what to give it where that is known."""

    name: str
    value: object = None


Spelling = Callable[[Argument], str]
"""Says an argument as whoever called would write it."""
Words = tuple[str | Argument, ...]
"""A sentence in parts: texts, and the arguments that it speaks of."""


def in_python(argument: Argument) -> str:
    """Spell an argument as a call in Python has it."""
    if argument.value is None:
        return f"`{argument.name}`"
    return f"{argument.name}={argument.value!r}"


def spelled(words: Words, spell: Spelling = in_python) -> str:
    """Return a sentence, its arguments spelled."""
    return "".join(spell(part) if isinstance(part, Argument) else part for part in words)


OUT, NEW = Argument("out"), Argument("new", True)
ANOTHER: Words = ("Choose another with ", OUT, ".")
"""What to do about a folder that is taken or cannot be written."""


@dataclass(frozen=True)
class Place:
    """Where something is wrong: in a file, or in an argument; and the run file's key that it is about."""

    file: str | None = None
    line: int | None = None
    column: int | None = None
    row: int | None = None
    """Of data, counted from 1."""
    argument: Argument | None = None
    key: tuple[str | int, ...] = ()

    def words(self, spell: Spelling = in_python) -> str:
        """Return `file:line:column`, `file, row N` or the argument; nothing where only a key is known."""
        numbers = [str(number) for number in (self.line, self.column) if number is not None]
        start = spell(self.argument) if self.argument else self.file
        where = ":".join([start, *numbers]) if start else ""
        return where if self.row is None else f"{where}, row {self.row}"

    def __str__(self) -> str:
        return self.words()

    def __bool__(self) -> bool:
        return self.file is not None or self.argument is not None


NOWHERE = Place()


def in_row(file: str, index: int) -> Place:
    """Return the place of a row of data by its index, from 0."""
    return Place(file, row=index + 1)


def overriding(override: str) -> Place:
    """Return the place of a key that an override sets, or of the override."""
    return Place(argument=Argument("overrides", override))


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    said: str
    """What, in words, without its place and without what to do."""
    kind: str = "refused"
    """To go by: `unknown`, `missing`, `not_allowed`, `taken`, ...; `refused` where there is no finer word."""
    place: Place = NOWHERE
    given: object = None
    allowed: object = None
    """What may stand there: in words, or a list of names."""
    remedies: tuple[Words, ...] = ()
    """What to do about it, a sentence each."""

    def words(self, spell: Spelling = in_python) -> str:
        """Return the place, what is wrong and what to do."""
        remedies = [spelled(remedy, spell) for remedy in self.remedies]
        where = [self.place.words(spell)] if self.place else []
        return ": ".join([*where, " ".join([self.said, *remedies])])

    def as_json(self, spell: Spelling = in_python) -> dict[str, object]:
        """Return what `--json` shows of it."""
        place, argument = self.place, self.place.argument
        return {
            "kind": self.kind,
            "message": self.words(spell),
            "file": place.file,
            "line": place.line,
            "column": place.column,
            "row": place.row,
            "argument": spell(argument) if argument else None,
            "key": ".".join(map(str, place.key)) or None,
            "given": self.given,
            "allowed": self.allowed,
            "remedies": [spelled(remedy, spell) for remedy in self.remedies],
        }

    def within(self, *above: str | int) -> "Fault":
        """Return the problem with a key below `above`."""
        return replace(self, place=replace(self.place, key=(*above, *self.place.key)))

    def at(self, place: Place) -> "Fault":
        """Return the problem at a place, if it has none of its own."""
        return (
            self
            if self.place
            else replace(self, place=replace(place, key=self.place.key or place.key))
        )


class Details(TypedDict, total=False):
    """Fields of a problem beside what is said."""

    kind: str
    given: object
    allowed: object


class Mended(Details, total=False):
    """The same, with what to do."""

    remedies: tuple[Words, ...]


class Placed(Details, total=False):
    """The same, with where it is."""

    place: Place


def wrong(key: str | int | tuple[str | int, ...], said: str, **fields: Unpack[Mended]) -> Fault:
    """Return what a part has found in its section of a run file, at a key in it; () is the whole section."""
    return Fault(said, place=Place(key=key if isinstance(key, tuple) else (key,)), **fields)


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


WORDS = {  # what others call names and values of ours
    "acc": "accuracy",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_hf": "adamw",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "bfloat16": "bf16",
    "bf16": "bfloat16",
    "constant_with_warmup": "constant",
    "dev": "validation",
    "em": "exact_match",
    "eval": "validation",
    "f1": "macro_f1",
    "float16": "fp16",
    "float32": "fp32",
    "fp16": "float16",
    "fp32": "float32",
    "half": "float16",
    "mcc": "matthews",
    "prefix_tuning": "prefix",
    "prompt_tuning": "prompt",
    "qlora": "lora",
    "reduce_lr_on_plateau": "plateau",
    "val": "validation",
    "valid": "validation",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was probably meant to be, or None."""
    known = list(known)
    same = (other for other in known if other.casefold() == name.casefold())
    close = difflib.get_close_matches(name, known, n=1)
    word = WORDS.get(name.lower())
    begun = [other for other in known if len(name) > 2 and other.startswith(name)]
    found = (next(same, None), word if word in known else None, *close, *begun[:1])
    return next(filter(None, found), None)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message that names the culprit, the closest valid name, and all the others."""
    known = sorted(set(known))
    close = nearest(name, known)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


def missing_extra(what: str, package: str, extra: str) -> str:
    """Return a message that names the extra which brings a package that is not installed."""
    return (
        f"{what} needs the package {package!r}. Install it with: pip install 'graftlab[{extra}]'."
    )
