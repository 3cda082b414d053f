"""Findings in plain sentences: what is beyond its null, what differs between models, and what does not."""

from collections.abc import Sequence
from typing import NamedTuple

from graftlab.contracts.analysis import TRAINABLE, WEIGHT
from graftlab.explanation.findings import FEWEST, LAYERS, LEVEL, Finding

NULLS = {
    "spectra": "a random change of the same rank and size has",
    "subspaces": "changes that learned nothing have",
    "path": "with a random change of the same rank and size it is",
    "sharpness": "in a random direction the curvature is",
    "cka": "with the texts of one permuted it is",
    "conflicts": "random directions have",
}
"""What is said before a null, by analysis."""
MODES = {TRAINABLE: "of what was trained", WEIGHT: "of whole weights"}
"""What is said of a gradient, by mode."""
MOST = 10  # sentences of each kind: one a number, that of the model where it is largest


class Told(NamedTuple):
    """Findings as a page tells them."""

    summary: str
    beyond: tuple[str, ...]
    """Numbers beyond their null, the largest first."""
    between: tuple[str, ...]
    """Numbers in which two models differ, the largest first."""
    not_told: str | None
    """The numbers that no model has beyond its null."""


def tell(findings: Sequence[Finding], without: Sequence[str] = ()) -> Told:
    """Return the largest findings as sentences; only what is told apart from 0 is claimed. `without` are
    models in which nothing could be analysed."""
    alone = [f for f in findings if f.other is None]
    pairs = [f for f in findings if f.other is not None]
    near = _near(alone)
    return Told(
        " ".join(
            [_summary(alone, pairs), *(f"No weight of {name} was changed." for name in without)]
        ),
        tuple(sentence(f) for f in _largest(alone)),
        tuple(sentence(f) for f in _largest(pairs)),
        f"Not told from their null in any model: {', '.join(near)}." if near else None,
    )


def _summary(alone: Sequence[Finding], pairs: Sequence[Finding]) -> str:
    every = [*alone, *pairs]
    if not every:
        return (
            f"Nothing could be compared: a number needs a null or a second model, and {FEWEST} layers or "
            f"more (or seeds), at the last checkpoint."
        )
    beyond = sum(f.beyond for f in alone)
    apart = sum(f.beyond for f in pairs)
    said = [
        f"Nothing is beyond its null ({len(alone)} comparisons)."
        if alone and not beyond
        else f"{beyond} of {len(alone)} numbers are beyond their null.",
        *([_between(apart, len(pairs))] if pairs else []),
        f"Compared at each model's last checkpoint, at {LEVEL:.0%} after Holm's correction for all "
        f"{len(every)} comparisons.",
    ]
    if any(f.over == LAYERS for f in every):
        said.append(
            "Intervals over layers are of one run each: another seed may differ by more than they say."
        )
    return " ".join(said)


def _between(apart: int, count: int) -> str:
    if not apart:
        return f"Nothing differs between models beyond its null ({count} comparisons)."
    return f"{apart} of {count} comparisons between models differ, nulls taken off."


def _largest(findings: Sequence[Finding]) -> list[Finding]:
    """Return the largest finding of each number."""
    found: dict[tuple[str, str, str | None, str | None], Finding] = {}
    for finding in findings:
        if finding.beyond:
            about = finding.analysis, finding.column, finding.family, finding.mode
            found.setdefault(about, finding)
    return list(found.values())[:MOST]


def _near(alone: Sequence[Finding]) -> list[str]:
    told = {f.column for f in alone if f.beyond}
    return [label(c) for c in dict.fromkeys(f.column for f in alone) if c not in told]


def label(column: str) -> str:
    """Return a number's column as words."""
    if column.startswith("change_"):
        return f"{label(column.removeprefix('change_'))} of the change"
    return column.replace("_", " ").replace("cka", "CKA")


def sentence(f: Finding) -> str:
    """Return a finding as one sentence or two, with its null and its interval."""
    groups = [part for part in (f.family, f.mode and MODES[f.mode]) if part]
    where = f" ({', '.join(groups)})" if groups else ""
    null = NULLS.get(f.analysis, "the null is")
    spread = f"95 % interval {number(f.low)} to {number(f.high)} over {f.units} {f.over}"
    name = label(f.column)
    name = name[0].upper() + name[1:]
    if f.other is None:
        assert f.null is not None, f
        return (
            f"{name}, {f.model}{where}: {number(f.value)}; {null} {number(f.null)}. Apart by "
            f"{number(f.difference)} ({spread})."
        )
    assert f.other_value is not None, f
    said = f"{name}{where}: {number(f.value)} in {f.model}, {number(f.other_value)} in {f.other}"
    if f.null is None or f.other_null is None:
        return f"{said}; there is no null. Apart by {number(f.difference)} ({spread})."
    return (
        f"{said}; {null} {number(f.null)} and {number(f.other_null)}. Beyond that they are "
        f"{number(f.difference)} apart ({spread})."
    )


def number(value: float) -> str:
    """Return a number with four digits that count."""
    return f"{value:.4g}"
