"""All that is wrong with a run file, said at once, each with its place and what is allowed."""

from collections.abc import Callable, Iterable
from typing import Unpack

from graftlab.config import foreign
from graftlab.errors import (
    NOWHERE,
    ConfigError,
    Fault,
    GraftlabError,
    Mended,
    Place,
    in_python,
    nearest,
)


class Problems:
    """Collects what is wrong until `raise_if_any` says it all in one error."""

    def __init__(self) -> None:
        self._problems: list[Fault] = []
        self._errors: set[type[GraftlabError]] = set()

    def add(self, problem: Fault, error: type[GraftlabError] = ConfigError) -> None:
        """Note a problem and what kind of error it is; the same one twice counts once."""
        self._errors.add(error)
        if problem not in self._problems:
            self._problems.append(problem)

    def say(self, place: Place, said: str, **fields: Unpack[Mended]) -> None:
        """Note what is wrong with a run file, in words, with further fields of `Fault`."""
        self.add(Fault(said, place=place, **fields))

    def include(self, error: GraftlabError, place: Place = NOWHERE) -> None:
        """Note all that an error has found, at `place` where it names no other."""
        for problem in error.problems:
            self.add(problem.at(place), type(error))

    def amend(self, start: int, change: Callable[[Fault], Fault]) -> None:
        """Change the problems that were noted from `start` on."""
        self._problems[start:] = [change(problem) for problem in self._problems[start:]]

    def __len__(self) -> int:
        return len(self._problems)

    def raise_if_any(self) -> None:
        """Raise one error that lists every problem; a ConfigError unless all are of another kind.

        Raises:
            GraftlabError: at least one problem was added.
        """
        if self._problems:
            error = self._errors.pop() if len(self._errors) == 1 else ConfigError
            raise error(sorted(self._problems, key=_order))


def _order(problem: Fault) -> tuple[str, int, int]:
    """Sort by file, then line and column; what comes from no line goes first."""
    place = problem.place
    start = in_python(place.argument) if place.argument else place.file or ""
    return start, place.line or 0, place.column or 0


def unknown_key(section: str, key: str, known: Iterable[str]) -> str:
    """Return a message with the known key that was probably meant, and all the others."""
    known = sorted(known)
    close = _meant(key, section, known)
    hint = f" Did you mean {close!r}?" if close else ""
    first = key.split(" ")[0].rstrip("{")
    if " " in key and first in known:
        hint = f" Is a colon missing after {first!r}?"
    where = f" in {section}" if section else ""
    return f"unknown key{where}: {key!r}.{hint} Known: {', '.join(known) or 'none'}."


def _meant(key: str, section: str, known: list[str]) -> str | None:
    """Return the known key that was meant: a slip away, another program's, or alike."""
    ours = foreign.FOREIGN.get(key)
    if ours is None or _slip(key, known):
        return closest(key, known)
    parent, _, last = ours.key.rpartition(".")
    return last if parent == section and last in known else None


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was meant: a slip away, another program's word, or alike."""
    known = list(known)
    return _slip(name, known) or foreign.word(name, known) or nearest(name, known)


def _slip(name: str, known: Iterable[str]) -> str | None:
    near = (candidate for candidate in known if slips(name.lower(), candidate, limit=1) <= 1)
    return next(near, None)


def slips(given: str, meant: str, limit: int) -> int:
    """Return how many letters are missing, added, wrong or swapped with their neighbour.

    The optimal string alignment distance; `limit + 1` where it is certainly larger than `limit`.
    """
    if abs(len(given) - len(meant)) > limit:
        return limit + 1
    before: list[int] = []
    last = list(range(len(meant) + 1))
    for row, letter in enumerate(given, start=1):
        line = [row]
        for column, other in enumerate(meant, start=1):
            cost = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != other))
            both = row > 1 and column > 1
            swapped = both and (given[row - 2], letter) == (other, meant[column - 2])
            line.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, line
    return last[-1]
