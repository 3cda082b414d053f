"""A space over the fields of a run file: what a trial may take for each, and what it lays over the base."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import Field, model_validator

from graftlab.config import Section, merge
from graftlab.rundir.records import Json

if TYPE_CHECKING:
    from optuna.trial import Trial

Number: TypeAlias = float  # the fields' names hide these two inside the class
Whole: TypeAlias = int
NUMBERS = (int, float)
PLAIN = (str, int, float, bool, type(None))


class Range(Section):
    """What a field may take: one of float, int and choice."""

    float: tuple[Number, Number] | None = None
    """Smallest and largest value."""
    int: tuple[Whole, Whole] | None = None
    """Smallest and largest whole number."""
    choice: tuple[Any, ...] | None = None
    """The values themselves; a list in the place of the whole range says the same."""
    log: bool = False
    """Draw by the order of magnitude."""
    step: Number | None = Field(None, gt=0)
    """Only values that are so far apart, from the smallest on."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Only where another field of the space has this value, as in {method.name: jelly}."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("float", "int", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of float, int and choice")
        if self.choice is not None:
            if len({json.dumps(value, sort_keys=True) for value in self.choice}) < len(self.choice):
                raise ValueError("choice: each value once")
            if not self.choice or self.log or self.step:
                raise ValueError("choice: one value or more, without log and step")
            return self
        low, high = self.ends
        if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
            raise ValueError(f"{given[0]}: the smallest value first, then a larger one")
        if self.log and (low <= 0 or self.step):
            raise ValueError("log: for values above 0, and without step")
        if self.int is not None and self.step is not None and self.step % 1:
            raise ValueError("step: of whole numbers a whole number")
        return self

    @property
    def ends(self) -> tuple[Any, Any]:
        """The smallest and the largest value of a range of numbers."""
        found = self.float if self.float is not None else self.int
        assert found is not None
        return found

    @property
    def endless(self) -> bool:
        """Whether there is no counting of its values."""
        return self.float is not None and self.step is None

    @property
    def probes(self) -> tuple[Json, ...]:
        """Values that have to be allowed for all to be: both ends, or every choice."""
        return self.choice if self.choice is not None else self.ends

    def value(self, drawn: Json) -> Json:
        """Return the field's value for what optuna has drawn."""
        if self.choice is None:
            return drawn
        return next(value for value in self.choice if label(value) == drawn)

    def holds(self, value: Json) -> bool:
        """Say whether a value is one of the range's."""
        if self.choice is not None:
            return any(label(value) == label(own) for own in self.choice)
        if isinstance(value, bool) or not isinstance(value, NUMBERS):
            return False
        low, high = self.ends
        off = 0.0 if self.step is None else (value - low) / self.step % 1
        whole = self.int is None or value == round(value)
        return bool(low <= value <= high) and whole and min(off, 1 - off) < 1e-9

    def at_edge(self, value: Number) -> str | None:
        """Return `smallest` or `largest` where a number is within a twentieth of the range from that end."""
        if self.choice is not None:
            return None
        least, most = self.ends
        if self.step is not None:  # the last step may end before the range does
            most = least + math.floor((most - least) / self.step * (1 + 1e-12)) * self.step
        if most == least:
            return None
        low, high = (math.log(end) if self.log else float(end) for end in (least, most))
        place = ((math.log(value) if self.log else float(value)) - low) / (high - low)
        return "smallest" if place <= 0.05 else "largest" if place >= 0.95 else None


def label(value: Json) -> str | int | float | bool | None:
    """Return a choice as optuna keeps it: itself, or as JSON where it is a list or a mapping."""
    return value if isinstance(value, PLAIN) else json.dumps(value, sort_keys=True)


Space = Mapping[str, Range]


def ordered(space: Space) -> Iterator[tuple[str, Range]]:
    """Yield the fields so that what a field depends on comes before it."""
    told: set[str] = set()
    rest = dict(space)
    while rest:
        ready = {key: r for key, r in rest.items() if not (set(r.when) & set(rest) - {key})}
        assert ready, "checked: conditions do not go round in a circle"
        yield from ready.items()
        told |= set(ready)
        rest = {key: r for key, r in rest.items() if key not in ready}


def applies(given: Range, drawn: Mapping[str, Json]) -> bool:
    """Say whether a field's condition holds among the values that are drawn."""
    return all(key in drawn and drawn[key] == value for key, value in given.when.items())


def suggest(space: Space, trial: "Trial") -> dict[str, Json]:
    """Return the values that a trial is to have, by field."""
    drawn: dict[str, Json] = {}
    for key, given in ordered(space):
        if applies(given, drawn):
            drawn[key] = given.value(_draw(trial, key, given))
    return drawn


def _draw(trial: "Trial", key: str, given: Range) -> Json:
    if given.choice is not None:
        return trial.suggest_categorical(key, [label(value) for value in given.choice])
    low, high = given.ends
    if given.int is not None:
        return trial.suggest_int(key, low, high, step=round(given.step or 1), log=given.log)
    return trial.suggest_float(key, low, high, step=given.step, log=given.log)


def laid(values: Mapping[str, Json]) -> dict[str, object]:
    """Return fields by their dotted keys as nested mappings."""
    found: dict[str, object] = {}
    for dotted, value in values.items():
        *above, last = dotted.split(".")
        piece: dict[str, object] = {last: value}
        for key in reversed(above):
            piece = {key: piece}
        found = merge(found, piece)
    return found


def cells(space: Space) -> Iterator[dict[str, Json]]:
    """Yield every combination of a space of choices, whole numbers and steps, as optuna keeps values.

    Raises:
        ValueError: a field has no end of values.
    """
    yield from _cells(list(ordered(space)), {}, {})


def _cells(
    rest: list[tuple[str, Range]], drawn: Mapping[str, Json], kept: Mapping[str, Json]
) -> Iterator[dict[str, Json]]:
    if not rest:
        yield dict(kept)
        return
    (key, given), *others = rest
    if not applies(given, drawn):
        yield from _cells(others, drawn, kept)
        return
    for value in _values(key, given):
        yield from _cells(others, {**drawn, key: value}, {**kept, key: label(value)})


def _values(key: str, given: Range) -> tuple[Json, ...]:
    if given.choice is not None:
        return given.choice
    low, high = given.ends
    if given.int is not None:
        return tuple(range(low, high + 1, round(given.step or 1)))
    if given.step is None:
        raise ValueError(f"{key} has no end of values")
    count = math.floor((high - low) / given.step * (1 + 1e-12)) + 1
    return tuple(low + index * given.step for index in range(count))
