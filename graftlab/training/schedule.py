"""The learning rate over the steps: a pure function, but for the plateau, whose state is three numbers."""

import math
from typing import Literal, TypedDict

from pydantic import Field

from graftlab.config import Section


class Config(Section):
    """How the learning rate moves."""

    name: Literal["linear", "constant", "cosine", "cosine_with_restarts", "plateau", "step"] = (
        "linear"
    )
    """After the warm-up: straight down to zero, level, cosine to zero (once, or `cycles` times), down by
    `factor` when validation stops improving, or down by `factor` every `step_every` steps."""
    warmup: float = Field(0.06, ge=0)
    """Rising from zero: a share of the run's steps if below 1, else a number of steps."""
    cycles: int = Field(1, ge=1)
    """Restarts of `cosine_with_restarts`."""
    factor: float = Field(0.1, gt=0, lt=1)
    """What `plateau` and `step` multiply the rate with."""
    step_every: int = Field(0, ge=0)
    """Steps between two drops of `step`; 0 means a third of the run."""
    patience: int = Field(2, ge=0)
    """Evaluations without improvement that `plateau` waits for."""


READ_BY = {
    "cycles": ("cosine_with_restarts",),
    "factor": ("plateau", "step"),
    "step_every": ("step",),
    "patience": ("plateau",),
}
"""Keys that only some schedules read."""


def warmup_steps(config: Config, num_steps: int) -> int:
    """Return the warm-up in steps; a share is rounded up, as transformers does."""
    return math.ceil(num_steps * config.warmup) if config.warmup < 1 else int(config.warmup)


def factor(step: int, num_steps: int, config: Config) -> float:
    """Return what multiplies the peak rate at `step` (from 1): the value that transformers' schedules
    give for that update, whose own count starts from 0."""
    done, warmup = step - 1, warmup_steps(config, num_steps)
    if done < warmup:
        return done / warmup
    if config.name in ("constant", "plateau"):
        return 1.0
    if config.name == "step":
        every = config.step_every or max(1, num_steps // 3)
        return float(config.factor ** ((done - warmup) // every))
    share = (done - warmup) / (num_steps - warmup)
    if config.name == "linear":
        return 1.0 - share
    cycles = config.cycles if config.name == "cosine_with_restarts" else 1
    return 0.5 * (1 + math.cos(math.pi * (cycles * share % 1.0)))


class Levelled(TypedDict):
    """What a checkpoint keeps of a plateau."""

    scale: float
    best: float | None
    waited: int


class Plateau:
    """Multiply by `factor` when the watched value has not improved for more than `patience` times.

    Only the schedule `plateau` does; under any other the scale stays 1, whatever a checkpoint says.
    """

    scale: float
    best: float | None
    waited: int

    def __init__(self, config: Config, higher_is_better: bool) -> None:
        self.config, self.higher_is_better = config, higher_is_better
        self.scale, self.best, self.waited = 1.0, None, 0

    def update(self, value: float | None) -> None:
        """Take one evaluation; an undefined value counts as no improvement."""
        if self.config.name != "plateau":
            return
        best = self.best
        if value is not None and (
            best is None or (value > best if self.higher_is_better else value < best)
        ):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.scale, self.waited = self.scale * self.config.factor, 0

    def state_dict(self) -> Levelled:
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Levelled) -> None:
        if self.config.name == "plateau":
            self.scale, self.best, self.waited = state["scale"], state["best"], state["waited"]
