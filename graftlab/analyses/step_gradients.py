"""Gradients as they were while a run trained: size, spread and sparsity of each weight's, by step.

Of each step's own batch, before clipping, where the run file's `analysis:` has asked for them.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from graftlab.analyses import last_of
from graftlab.contracts import Asked, Subject

FILE = "gradient_analysis/step_gradients"
SHOWN = ("model", "checkpoint", "param", "mean", "std", "norm", "sparsity")
TABLE = "gradients"


class Row(NamedTuple):
    """The gradient of one weight at one step, or of all together."""

    model: str
    checkpoint: int
    """The step: of the weights before it."""
    type: str | None
    rank: int | None
    task_type: str | None
    layer_type: str
    """attention, mlp, embed, norm, head, other; `global` for all together."""
    param: str
    """The weight's name: of what was trained."""
    number: int | None
    """The first number in its name: which layer."""
    mean: float | None
    """Of the absolute values."""
    std: float | None
    """Standard deviation of the values."""
    norm: float | None
    """Root of the sum of squares."""
    sparsity: float | None
    """Share of values that are exactly 0."""
    near_zero: float | None
    """Share of values up to 1e-8."""
    numel: int
    """How many values there are."""


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield a line for each weight and step of each run that has recorded them."""
    for subject in asked.each(last_of(subjects)):
        about = subject.about
        for line in subject.recorded(TABLE):
            own = {name: value for name, value in line.items() if name != "step"}
            yield Row(about.model, line["step"], about.method, about.rank, about.task_type, **own)
