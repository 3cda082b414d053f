"""Tables of gradients while a run trains: of each weight, and between the tasks of a mixture.

`gradients.jsonl` has size, spread and sparsity of each trained weight's gradient, before clipping;
`conflicts.jsonl` the cosine of every two tasks' gradients in the step's batch, by layer and of all together:
below 0 a step for the one is a step against the other (Yu et al. 2020, Gradient Surgery for Multi-Task
Learning). Both lie in the run's directory, where `graftlab analyse` reads them. The key `analysis:` of a run
file is this hook.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from graftlab.analyses import number
from graftlab.analyses.gradients import Sums, kind_of
from graftlab.config import Section
from graftlab.contracts import Hook, Setting, Training
from graftlab.contracts.analysis import GLOBAL
from graftlab.errors import Fault, wrong
from graftlab.hooks import _weights
from graftlab.rundir.lines import Lines, NoLines
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor

OBSERVES = True
Kind = Literal["gradients", "conflicts"]
GRADIENTS, CONFLICTS = "gradients", "conflicts"


class Config(Section):
    """What is measured, and when."""

    every: int = Field(200, ge=1)
    """Steps between two measurements; the last step is measured too."""
    kinds: tuple[Kind, ...] | None = None
    """`gradients`, and of a mixture `conflicts`, for which a measured step keeps a copy of the gradient of
    every task; unless given, all that the task has."""

    @field_validator("kinds")
    @classmethod
    def _some_and_each_once(cls, kinds: tuple[Kind, ...] | None) -> tuple[Kind, ...] | None:
        if kinds is not None and (not kinds or len({*kinds}) < len(kinds)):
            raise ValueError("kinds: name one or more, each once")
        return kinds


def check(config: Config, mixture: bool) -> list[Fault]:
    """Refuse conflicts where there is but one task."""
    if mixture or CONFLICTS not in (config.kinds or ()):
        return []
    said = (
        f"kinds: {CONFLICTS} are those between the tasks of a mixture, and this run has one task."
    )
    return [wrong("kinds", said, kind="not_allowed", given=CONFLICTS, allowed=[GRADIENTS])]


def make(config: Config, setting: Setting) -> Hook:
    """Return the hook for a run."""
    every_kind = (GRADIENTS, *([CONFLICTS] if setting.problem.parts else []))
    return Analysis(config.every, config.kinds or every_kind)


class Analysis(Hook):
    """Measures a step's gradients and writes their lines once the step is made."""

    def __init__(self, every: int, kinds: tuple[str, ...]) -> None:
        self.every = every
        self.files: dict[str, Lines | NoLines] = dict.fromkeys(kinds, NoLines())
        self._found: dict[str, list[dict[str, object]]] = {}

    def on_train_start(self, training: Training) -> None:
        """Open the tables."""
        self.training = training
        self.files = {kind: training.lines(kind) for kind in self.files}

    def wants_task_gradients(self, step: int) -> bool:
        return CONFLICTS in self.files and self._due(step)

    def before_optimizer_step(self, step: int) -> dict[str, float]:
        """Measure the gradients."""
        self._found = {}
        if self._due(step) and GRADIENTS in self.files:
            self._found[GRADIENTS] = list(_gradients(self.training))
        if self.wants_task_gradients(step):
            self._found[CONFLICTS] = list(_conflicts(self.training.task_gradients()))
        return {}

    def after_optimizer_step(self, step: int) -> dict[str, float]:
        """Write what was measured: the step is made."""
        for kind, lines in self._found.items():
            for line in lines:
                self.files[kind].append({"step": step, **line})
        self._found = {}
        return {}

    def _due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.training.num_steps


def _gradients(training: Training) -> Iterator[dict[str, object]]:
    """Yield a line for each weight that has a gradient, then one for all together."""
    whole = Sums()
    for name, parameter in surgery.trainable(training.model).items():
        if parameter.grad is not None:
            sums, plain = Sums.of(parameter.grad), _weights.plain(name)
            whole += sums
            yield _line(kind_of(plain), plain, sums)
    yield _line(GLOBAL, GLOBAL, whole)


def _line(kind: str, name: str, sums: Sums) -> dict[str, object]:
    mean, std, norm, zeros, near = sums.figures()
    return {
        "layer_type": kind, "param": name, "number": number(name), "mean": mean, "std": std,
        "norm": norm, "sparsity": zeros, "near_zero": near, "numel": sums.count,
    }  # fmt: skip


def _conflicts(
    by_task: "Mapping[str, Mapping[str, Tensor]]",
) -> Iterator[dict[str, object]]:
    """Yield a line for every two tasks in each block, then of all together."""
    names = list(next(iter(by_task.values()), {}))
    blocks: dict[str, list[str]] = {}
    for name in names:
        blocks.setdefault(_weights.GROUPS["block"](_weights.plain(name)), []).append(name)
    for block, own in [*blocks.items(), (GLOBAL, names)]:
        norms = {task: math.sqrt(_inner(found, found, own)) for task, found in by_task.items()}
        for one, other in combinations(by_task, 2):
            size = norms[one] * norms[other]
            inner = _inner(by_task[one], by_task[other], own)
            yield {
                "layer": block, "number": number(f"{block}."), "task": one, "other_task": other,
                "cosine": max(-1.0, min(1.0, inner / size)) if size else None,
                "norm": norms[one], "other_norm": norms[other],
            }  # fmt: skip


def _inner(one: "Mapping[str, Tensor]", other: "Mapping[str, Tensor]", names: list[str]) -> float:
    """Return the inner product of two gradients over some parameters, in float64."""
    pairs = ((one[name].double(), other[name].double()) for name in names)
    return math.fsum(float((a * b).sum()) for a, b in pairs)
