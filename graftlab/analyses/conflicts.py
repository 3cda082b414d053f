"""Whether the tasks of a mixture pull apart: the cosine of every two tasks' gradients, by layer.

The mean over the steps that the run has measured (`analysis:` of its file), each on its own batch. Below 0, a
step for the one task is a step against the other. Gradients in random directions have 0 on average, in D
dimensions give or take 1 / sqrt D, whatever their size.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from graftlab.analyses import last_of
from graftlab.contracts import Asked, Subject

FILE = "gradient_analysis/conflicts"
SHOWN = ("model", "checkpoint", "pair", "layer", "cosine", "null_cosine", "opposed", "steps")
TABLE = "conflicts"


class Row(NamedTuple):
    """Two tasks in one layer, or in all together."""

    model: str
    checkpoint: int
    """The last step that was measured."""
    task_type: str | None
    pair: str
    """Both tasks."""
    task: str
    """The first of them."""
    other_task: str
    """The second."""
    layer: str
    """The block's name; `global` for all together."""
    number: int | None
    """The first number in its name: which layer."""
    cosine: float | None
    """Mean over the steps, of those at which both tasks had a gradient."""
    null_cosine: float | None
    """What gradients in random directions would have on average."""
    deviation: float | None
    """Standard deviation of the cosine over the steps; of one step there is none."""
    opposed: float | None
    """Share of the steps at which it was below 0."""
    steps: int
    """How many were measured."""
    gradient_norm: float
    """Root mean square over the steps of the first task's part of the gradient."""
    other_gradient_norm: float
    """The same of the other's."""


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield a line for every two tasks of each layer of each run that has recorded them."""
    for subject in asked.each(last_of(subjects)):
        lines: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
        for line in subject.recorded(TABLE):
            key = line["layer"], line["task"], line["other_task"]
            lines.setdefault(key, []).append(line)
        for own in lines.values():
            yield _row(subject, own)


def _row(subject: Subject, lines: Sequence[Mapping[str, Any]]) -> Row:
    about, last = subject.about, lines[-1]
    cosines = [float(line["cosine"]) for line in lines if line["cosine"] is not None]
    mean = math.fsum(cosines) / len(cosines) if cosines else None
    spread = None
    if mean is not None and len(cosines) > 1:
        spread = math.sqrt(math.fsum((c - mean) ** 2 for c in cosines) / (len(cosines) - 1))
    opposed = sum(cosine < 0 for cosine in cosines) / len(cosines) if cosines else None
    null = None if mean is None else 0.0
    norm, other = (_size([line[name] for line in lines]) for name in ("norm", "other_norm"))
    return Row(
        about.model, last["step"], about.task_type, f"{last['task']} and {last['other_task']}",
        last["task"], last["other_task"], last["layer"], last["number"], mean, null, spread, opposed,
        len(lines), norm, other,
    )  # fmt: skip


def _size(norms: Sequence[float]) -> float:
    return math.sqrt(math.fsum(norm**2 for norm in norms) / len(norms))
