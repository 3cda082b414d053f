"""What differs in the tables of analyses: each number beside its null, and between models, with intervals.

A comparison takes the mean over units: the layers of one run, or runs that only their seed tells apart where
there are several of a configuration. The interval is Student's, p is corrected by Holm over all comparisons
of a call. Layers of one run are no repetition of it: what holds over them may fall with another seed.
"""

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, TypeGuard

from graftlab.contracts.analysis import GLOBAL
from graftlab.explanation.sample import SENTENCE
from graftlab.statistics import multiplicity, seeds

LAYERS, SEEDS = "layers", "seeds"
FEWEST = 3
"""Units below which there is no interval worth the name."""
LEVEL = 0.05
NULL = "null_"
NOT_COMPARED = ("step_gradients",)
"""Analyses whose numbers are of factors in one method, of weights in another, each on another batch."""
BARE = ("relative_change", "norm")
"""Numbers without a null that models are compared by."""

MEANT = "angle_"
"""Columns that one of their mean stands for."""

Values = Mapping[str, tuple[float, float | None]]
"""Unit -> the mean over its weights, and that of its null."""


class Finding(NamedTuple):
    """One comparison: of a model with its null, or of two models."""

    analysis: str
    column: str
    family: str | None
    """Of tasks, where models are grouped by it."""
    mode: str | None
    """Of gradients, which are compared in each mode for itself."""
    model: str
    other: str | None
    """The model that it is compared with; None: its own null."""
    value: float
    null: float | None
    other_value: float | None
    other_null: float | None
    difference: float
    """value - null; between models (value - null) - (other_value - other_null), nulls where there are any."""
    low: float
    high: float
    """The 95 % interval of the difference, over the units."""
    over: str
    """What the units are: layers or seeds."""
    units: int
    p: float
    """Of a paired t-test against 0, by itself."""
    corrected: float
    """The same, corrected by Holm over all comparisons of the call."""

    @property
    def beyond(self) -> bool:
        """Whether the difference is told from 0."""
        return self.corrected < LEVEL

    @property
    def size(self) -> float:
        """The difference over the larger of what is compared: 0 none, 1 all of it."""
        known = (self.value, self.null, self.other_value, self.other_null)
        largest = max(abs(number) for number in known if number is not None)
        return abs(self.difference) / largest if largest else 0.0


def find(tables: Mapping[str, Sequence[object]], repeats: Mapping[str, str]) -> list[Finding]:
    """Return every comparison that the tables allow, what is told apart first, then by size.

    `repeats` names the configuration of each model; models of one are its repetitions.
    """
    found = [
        finding
        for analysis, rows in tables.items()
        if analysis not in NOT_COMPARED
        for (family, mode), own in _groups(rows).items()
        for column in _columns(own)
        for finding in _compared((analysis, column, family, mode), own, repeats)
    ]
    corrected = multiplicity.holm([finding.p for finding in found])
    found = [f._replace(corrected=p) for f, p in zip(found, corrected, strict=True)]
    return sorted(found, key=lambda f: (not f.beyond, -f.size))


def _groups(rows: Sequence[object]) -> dict[tuple[str | None, str | None], list[object]]:
    """Return the rows to compare by family of tasks and mode: a gradient of one sentence is noise, the only
    singular value of a vector says nothing of ranks and directions, and all together is no layer."""
    found: dict[tuple[str | None, str | None], list[object]] = {}
    for row in at_last(rows):
        single = getattr(row, "sample", None) == SENTENCE or getattr(row, "columns", None) == 1
        if not single and not together(row):
            group = getattr(row, "task_type", None), getattr(row, "mode", None)
            found.setdefault(group, []).append(row)
    return found


def together(row: object) -> bool:
    """Say whether a line is of all weights together."""
    return _weight(row) == GLOBAL


def at_last(rows: Iterable[object]) -> list[object]:
    """Return the rows of each model's last checkpoint; of pairs those of two models, at most dimensions; of a
    path what it has come to."""
    kept = [row for row in rows if getattr(row, "model", None) != getattr(row, "other", None)]
    kept = [row for row in kept if getattr(row, "scale", None) in (None, 1)]
    last: dict[str, int] = {}
    most: dict[str, int] = {}
    for row in kept:
        last[name(row)] = max(last.get(name(row), -1), _whole(row, "checkpoint"))
        most[name(row)] = max(most.get(name(row), -1), _whole(row, "dimensions"))
    return [
        row
        for row in kept
        if _whole(row, "checkpoint") == last[name(row)]
        and _whole(row, "dimensions") == most[name(row)]
    ]


def _whole(row: object, column: str) -> int:
    value = getattr(row, column, None)
    return -1 if value is None else int(value)


def name(row: object) -> str:
    """Return what a line is of: a model, a pair of models, or a pair of tasks in one."""
    return _named(row, {})


def _named(row: object, names: Mapping[str, str]) -> str:
    """Return what a line is of, with other names for some models."""
    model, other, pair = (getattr(row, field, None) for field in ("model", "other", "pair"))
    found = " and ".join(names.get(one, one) for one in (model or "", other) if one is not None)
    return found if pair is None else f"{found}: {pair}"


def _columns(rows: Sequence[object]) -> list[str]:
    fields: tuple[str, ...] = getattr(rows[0], "_fields", ())
    kept = [field for field in fields if not field.startswith(MEANT)]
    return [field for field in kept if f"{NULL}{field}" in fields or field in BARE]


def _compared(
    about: tuple[str, str, str | None, str | None],
    rows: Sequence[object],
    repeats: Mapping[str, str],
) -> Iterator[Finding]:
    column, held = about[1], _runs(rows, repeats)
    for model, runs in held.items():
        over, own = _units(runs, column)
        if len(own) >= FEWEST and all(null is not None for _, null in own.values()):
            yield _finding(about, over, (model, own), None)
    for one, other in combinations(held, 2):
        both = _weights(held[one]) & _weights(held[other])
        (over, first), (as_well, second) = (_units(held[m], column, both) for m in (one, other))
        shared = [unit for unit in first if unit in second]
        if len(shared) >= FEWEST and over == as_well:
            pair = [(m, {u: v[u] for u in shared}) for m, v in ((one, first), (other, second))]
            yield _finding(about, over, pair[0], pair[1])


Runs = Mapping[str, Sequence[object]]
"""Of one configuration: the rows of each of its runs."""


def _runs(rows: Sequence[object], repeats: Mapping[str, str]) -> dict[str, Runs]:
    held: dict[str, dict[str, list[object]]] = {}
    for row in rows:
        held.setdefault(_configuration(row, repeats), {}).setdefault(name(row), []).append(row)
    return {**held}


def _weight(row: object) -> str:
    return str(getattr(row, "layer", None) or getattr(row, "param", None))


def _weights(runs: Runs) -> set[str]:
    return {_weight(row) for own in runs.values() for row in own}


def _units(
    runs: Runs, column: str, weights: Container[str] | None = None
) -> tuple[str, dict[str, tuple[float, float | None]]]:
    """Return what the units of a configuration are, and the means of each over its weights, or some."""
    parts: dict[str, list[object]] = {}
    for place, own in enumerate(runs.values()):
        for row in own:
            number = getattr(row, "number", None)
            layer = _weight(row) if number is None else str(number)
            if weights is None or _weight(row) in weights:
                # the n-th seed of one configuration stands beside the n-th of another
                parts.setdefault(str(place) if len(runs) > 1 else layer, []).append(row)
    means = {unit: _mean(own, column) for unit, own in parts.items()}
    known = {unit: mean for unit, mean in means.items() if mean is not None}
    return SEEDS if len(runs) > 1 else LAYERS, known


def _configuration(row: object, repeats: Mapping[str, str]) -> str:
    return _named(row, repeats)


def _mean(rows: Sequence[object], column: str) -> tuple[float, float | None] | None:
    """Return the mean over the lines that have both numbers; None where none has."""
    values = [(getattr(row, column), getattr(row, f"{NULL}{column}", None)) for row in rows]
    if column in BARE:
        alone = [float(value) for value, _ in values if _known(value)]
        return (math.fsum(alone) / len(alone), None) if alone else None
    pairs = [(float(a), float(b)) for a, b in values if _known(a) and _known(b)]
    if not pairs:
        return None
    return math.fsum(a for a, _ in pairs) / len(pairs), math.fsum(b for _, b in pairs) / len(pairs)


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _finding(
    about: tuple[str, str, str | None, str | None],
    over: str,
    one: tuple[str, Values],
    other: tuple[str, Values] | None,
) -> Finding:
    apart = _apart(one[1].values())
    against = _apart(other[1].values()) if other else [0.0] * len(apart)
    difference, low, high, p = interval(apart, against)
    value, null = _means(one[1].values())
    other_value, other_null = _means(other[1].values()) if other else (None, None)
    return Finding(
        *about, one[0], other[0] if other else None, value or 0.0, null, other_value, other_null,
        difference, low, high, over, len(apart), p, p,
    )  # fmt: skip


def _apart(values: Iterable[tuple[float, float | None]]) -> list[float]:
    return [value - (null or 0.0) for value, null in values]


def _means(values: Iterable[tuple[float, float | None]]) -> tuple[float | None, float | None]:
    numbers, nulls = zip(*values, strict=True)
    known = [null for null in nulls if null is not None]
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.fsum(known) / len(known) if known else None


def interval(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the mean difference of paired units, its 95 % interval, and p of a paired t-test; units that all
    differ alike leave nothing open."""
    estimate = seeds.paired(one, other)
    ends, p = estimate.interval(), estimate.p
    if ends is None or p is None:
        return estimate.value, estimate.value, estimate.value, 0.0 if estimate.value else 1.0
    return estimate.value, *ends, p
