"""What is wrong, as a record: where, what was given and is allowed, what to do. Words are made of it last."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack


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

    def mended(self, *remedies: Words) -> "Fault":
        """Return the problem with more to do about it."""
        return replace(self, remedies=(*self.remedies, *remedies))

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
