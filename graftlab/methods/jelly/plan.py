"""What a run does about the switch of its sequential adapters, and when."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from graftlab.methods.jelly.coherence import Trigger

# At most these shares of a run, where nothing is set: every run that is dynamic switches.
SHARES = {"warmup": 1 / 10, "minimum": 1 / 5, "latest": 2 / 3}
SOURCE = {"warmup": 50, "minimum": 100}
"""Steps that JELLY's source has for them, and no latest one."""

Steps = int | float | None
"""A number of optimizer steps, or, between 0 and 1, a share of the run."""


@dataclass(frozen=True)
class Plan:
    """What a run does about the switch. Fields as in the run file's `method` section."""

    mode: str = "dynamic"
    switch_method: str = "exact"
    switch_epoch: float | None = None
    switch_step: int | None = None
    reset_optimizer: bool = True
    rewarmup_steps: int = 0
    criterion: Literal["consecutive", "halves"] = "consecutive"
    ema: float = 0.1
    drop_ratio: float = 0.2
    patience: int = 1
    warmup: Steps = None
    minimum: Steps = None
    latest: Steps = None
    seed: int = 0

    def fixed_step(self, steps_per_epoch: int) -> int | None:
        """Return after how many steps `seq2par` switches; None in the other modes."""
        if self.mode != "seq2par":
            return None
        if self.switch_step is not None:
            return self.switch_step
        epochs = 1.0 if self.switch_epoch is None else self.switch_epoch
        step = math.ceil(epochs * steps_per_epoch)
        # 0.07 epochs of 100 steps are 7 steps, but 0.07 * 100 is a little more than 7
        return max(0, step - 1 if (step - 1) / steps_per_epoch >= epochs else step)

    def trigger(self, num_steps: int) -> "Trigger | None":
        """Return the state machine of `dynamic` for a run of this length; None in the other modes."""
        from graftlab.methods.jelly.coherence import Trigger

        if self.mode != "dynamic":
            return None
        steps = {name: self._in_steps(name, num_steps) for name in SHARES}
        return Trigger(ema=self.ema, drop_ratio=self.drop_ratio, patience=self.patience, **steps)

    def _in_steps(self, name: str, num_steps: int) -> int:
        given: Steps = getattr(self, name)
        if given is None:
            share = max(1, int(SHARES[name] * num_steps))
            return min(share, SOURCE.get(name, share))
        return int(given) if isinstance(given, int) else max(1, round(given * num_steps))
