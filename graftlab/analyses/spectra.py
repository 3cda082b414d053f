"""Singular values of each changed weight and of its change, and how both lie to the weight before.

Each number of a change, and of the weight beside the weight before, has `null_...` next to it: the same of a
random change of the same rank and size, drawn by a seed. What is near its null says nothing of training.
"""

import functools
import hashlib
import inspect
import json
import math
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.analyses import matrix, module, number
from graftlab.contracts import About, Change
from graftlab.contracts.analysis import CHANGE, MOVE, NEW, WEIGHT, Asked, Quantity, Subject
from graftlab.spectra import Before, Delta, Moved, Spectrum, subspace, threads
from graftlab.spectra.moved import code

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]

FILE = "svd_analysis/svd_analysis_results"
SHOWN = (
    *("model", "checkpoint", "layer", "rank", "relative_change", "change_stable_rank"),
    *("null_change_stable_rank", "mean_principal_angle", "intruder_dimensions", "note"),
)
NOT_FINITE, ELSEWHERE = "not finite", "another shape before"
QUANTITIES = Path(__file__).parents[1] / "quantities"
DENSE = "dense: no product of factors"
VALUES = 10  # columns of singular values, as in the source
SOURCE = (
    *("effective_rank", "rank_95_energy", "spectral_norm", "condition_number", "sv_correlation"),
    *("left_space_similarity", "right_space_similarity", "mean_principal_angle"),
)
"""The source's columns, which come first."""


class Column(NamedTuple):
    """One number of the table."""

    name: str
    kind: type
    quantity: Quantity
    of: str
    """`weight`, `change` or `move`."""
    null: bool
    """Whether it is that of a random change."""


def columns(asked: Asked) -> list[Column]:
    """Return the columns of numbers: the source's, then all others by name, each before its null."""
    found = []
    for name, quantity in asked.quantities.items():
        kind = _kind(quantity)
        for what in quantity.OF:
            shown = f"change_{name}" if what == CHANGE else name
            found.append(Column(shown, kind, quantity, what, False))
            if asked.null and quantity.NULL and what != WEIGHT:
                found.append(Column(f"null_{shown}", kind, quantity, what, True))
    order = {name: place for place, name in enumerate(SOURCE)}
    return sorted(
        found,
        key=lambda c: (order.get(c.name, len(order)), c.name.removeprefix("null_"), c.null),
    )


def _kind(quantity: Quantity) -> type:
    (kind,) = set(typing.get_args(typing.get_type_hints(quantity.value)["return"])) - {type(None)}
    assert isinstance(kind, type)
    return kind


def row(asked: Asked) -> type[object]:
    """Return the class of a line: names as in the source, then what it has not."""
    numbers = columns(asked)
    fields: list[tuple[str, object]] = [
        *(("model", str), ("checkpoint", int | None), ("layer", str), ("type", str | None)),
        *(("task_type", str | None), ("rank", int | None)),
        *((f"sv_{k}", float | None) for k in range(VALUES)),
        *((c.name, c.kind | None) for c in numbers if c.name in SOURCE),
        *(("number", int | None), ("module", str), ("rows", int), ("columns", int)),
        *((f"change_sv_{k}", float | None) for k in range(VALUES)),
        *((f"{name}_{k}", float | None) for name in _angles(asked) for k in range(VALUES)),
        *((c.name, c.kind | None) for c in numbers if c.name not in SOURCE),
        *(("route", str | None), ("note", str | None)),
    ]
    made: object = NamedTuple("Row", fields)  # type: ignore[misc]
    return made


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[object]:
    """Yield a line for each weight of each subject, a weight's lines after each other: what is computed of
    the weight before serves them all."""
    line, table = row(asked), Table(asked)
    names = {id(subject): set(subject.names()) for subject in subjects}
    weights = list(dict.fromkeys(name for subject in subjects for name in subject.names()))
    for name in asked.each(weights):
        table.before.clear()
        table.given = None
        for subject in subjects:
            if name in names[id(subject)]:
                yield line(**table.line(subject, name))


class Table:
    """The table under way."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self.columns = asked, columns(asked)
        self.code = code(), code(QUANTITIES), _hash_of_file(__name__)
        self.before: dict[str, Before] = {}
        """By its hash, the weight that is under way, as it was before."""
        self.given: tuple[Tensor, Before] | None = None
        """The last of them as a subject has given it: what the next one shares is not hashed again."""

    def line(self, subject: Subject, name: str) -> dict[str, object]:
        """Return one line, by column."""
        change = subject.change(name)
        across = change.left if change.right is None else change.right
        with threads.fit_for(min(change.left.shape[0], across.shape[-1])):
            return self._line(subject, name, change)

    def _line(self, subject: Subject, name: str, change: Change) -> dict[str, object]:
        right = None if change.right is None else matrix(change.right)
        delta, about = Delta(matrix(change.left), right), subject.about
        several = ("sv", "change_sv", *_angles(self.asked))
        empty = [f"{name}_{k}" for name in several for k in range(VALUES)]
        line: dict[str, object] = dict.fromkeys([*empty, *(column.name for column in self.columns)])
        line |= {
            "model": about.model, "checkpoint": about.checkpoint, "layer": name, "type": about.method,
            "task_type": about.task_type, "rank": about.rank, "number": number(name),
            "module": module(name), "route": None, "note": None,
        } | dict(zip(("rows", "columns"), delta.shape, strict=True))  # fmt: skip
        if not delta.finite:
            return line | {"note": NOT_FINITE}
        if change.new:
            return line | self._of_new(about, name, delta)
        if about.rank and right is None and delta.shape[1] > 1:
            line["note"] = DENSE
        before = self._held(subject.base(name))
        if before is not None and before.matrix.shape != delta.shape:
            line["note"], before = ELSEWHERE, None
        if before is not None and not before.finite:
            line["note"], before = f"{NOT_FINITE} before", None
        if self.asked.vectors is not None:
            moved = None if before is None else Moved(before, delta, self.asked)
            self.asked.vectors(about, name, _arrays(delta, moved, self.asked.top))
        return line | self._known(delta, before)

    def _of_new(self, about: About, name: str, weight: Delta) -> dict[str, object]:
        """Return what is known of a weight that was not there before: its own spectrum."""
        spectrum = weight.spectrum
        found: dict[str, object] = _numbered("sv", spectrum.values)
        for column in self.columns:
            if column.of == WEIGHT:
                found[column.name] = column.quantity.value(spectrum)
        if self.asked.vectors is not None:
            self.asked.vectors(about, name, _of_spectrum("weight", spectrum, self.asked.top))
        return found | {"route": spectrum.route, "note": NEW}

    def _held(self, weight: "Tensor | None") -> Before | None:
        """Return the weight before, the same record for the same numbers; None of none, or of a vector."""
        if weight is None or weight.dim() < 2:
            return None
        if self.given is None or self.given[0] is not weight:
            before = Before(matrix(weight), self.asked.kept)
            self.given = weight, self.before.setdefault(before.digest, before)
        return self.given[1]

    def _known(self, delta: Delta, before: Before | None) -> dict[str, object]:
        """Return the numbers, from what is kept if they have been computed before."""
        asked = self.asked
        names = [(column.name, hash_of(column.quantity)) for column in self.columns]
        names += [(name, "") for name in _angles(asked)]
        settings = (asked.top, asked.full, asked.epsilon, asked.seed, names, self.code)
        told = json.dumps([delta.digest, before and before.digest, settings])
        key = "spectra-" + hashlib.sha256(told.encode()).hexdigest()
        found = asked.kept.get(key) if asked.kept else None
        if found is None:
            draws = np.random.default_rng([asked.seed, int(delta.digest[-8:], 16)])
            found = self._numbers(delta, before, draws)
            if asked.kept:
                asked.kept.put(key, found)
        return {name: math.inf if value == "inf" else value for name, value in found.items()}

    def _numbers(
        self, delta: Delta, before: Before | None, draws: np.random.Generator
    ) -> dict[str, object]:
        """Return the numbers of one weight: infinite ones as texts, as JSON has none."""
        asked = self.asked
        moved = None if before is None else Moved(before, delta, asked)
        null = delta.random(draws) if any(column.null for column in self.columns) else delta
        null_moved = None if before is None else Moved(before, null, asked)
        found: dict[str, object] = _numbered("change_sv", delta.spectrum.values)
        for column in self.columns:
            source = null if column.null else delta
            whole = null_moved if column.null else moved
            if column.of == CHANGE:
                found[column.name] = column.quantity.value(source.spectrum)
            elif whole is not None:
                given = whole if column.of == MOVE else whole.weight
                found[column.name] = column.quantity.value(given)
        for name, whole in zip(_angles(asked), (moved, null_moved), strict=False):
            if whole is not None:
                found |= _numbered(name, subspace.angles(*whole.left_spaces()))
        if moved is not None:
            found |= _numbered("sv", moved.weight.values)
        found["route"] = (delta.spectrum if moved is None else moved.weight).route
        return {name: "inf" if value == math.inf else value for name, value in found.items()}


def hash_of(quantity: Quantity) -> str:
    """Return a hash of the file that computes a quantity, which may be another package's."""
    return _hash_of_file(quantity.value.__module__)


@functools.cache
def _hash_of_file(module: str) -> str:
    return hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()[:16]


def _arrays(delta: Delta, moved: Moved | None, top: int) -> "dict[str, Floats]":
    """Return all singular values of a change, the weight and the weight before, and their top vectors."""
    spectra = {"change": delta.spectrum}
    if moved is not None:
        spectra |= {"weight": moved.weight, "before": moved.before}
    return {
        key: values for name, found in spectra.items()
        for key, values in _of_spectrum(name, found, top).items()
    }  # fmt: skip


def _of_spectrum(name: str, found: Spectrum, top: int) -> "dict[str, Floats]":
    parts = (("values", found.values), ("left", found.left(top)), ("right", found.right(top)))
    return {f"{name}_{what}": values for what, values in parts}


def _angles(asked: Asked) -> tuple[str, ...]:
    """Return what the columns of principal angles are called: those of the change, then its null's."""
    return ("angle", "null_angle") if asked.null else ("angle",)


def _numbered(prefix: str, values: "Floats") -> dict[str, object]:
    return {f"{prefix}_{k}": float(value) for k, value in enumerate(values[:VALUES])}
