"""Norms of what trains: gradients, weights, updates, and the way from the start, by part of the model.

A layer whose gradient is a thousandth of its neighbours' does not learn; an update of a hundredth of its
weight or more says that the learning rate is high; what moves away from its start and does not come to rest
wants more steps, or fewer.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from graftlab.config import Section
from graftlab.contracts import Hook, Setting, Training
from graftlab.hooks import _weights
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor

OBSERVES = True
Quantity = Literal["gradient", "weight", "update", "distance"]


class Config(Section):
    """What is measured, where, and when."""

    every: int = Field(10, ge=1)
    """Steps between two measurements; the last step is measured too."""
    of: tuple[Quantity, ...] = ("gradient", "weight", "update")
    """Gradients before clipping, weights after the step, what it has changed, and all that has changed since
    the start (`distance`: keeps a copy of what trains, in checkpoints too)."""
    by: _weights.Grouping = "block"
    """One norm of all, of each transformer block (and each part outside them), of each weight over all blocks
    (`kind`), or of each tensor."""

    @field_validator("of")
    @classmethod
    def _some_and_each_once(cls, of: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
        if not of or len({*of}) < len(of):
            raise ValueError("of: name one or more, each once")
        return of


def make(config: Config, setting: Setting) -> Hook:
    """Return the hook for a run."""
    return Norms(config)


class Norms(Hook):
    """Measures a step and logs it once it is done, under `norms/QUANTITY/GROUP`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.measured: dict[str, float] = {}  # of the last step, not logged yet
        self.start = _weights.Start()
        self._before: dict[str, Tensor] = {}
        self._gradients: dict[str, float] = {}

    def on_train_start(self, training: Training) -> None:
        """Remember where the weights begin."""
        self.training = training
        self._meet()

    def on_step_start(self, step: int) -> None:
        """Log the step before, under its number."""
        self._log()

    def before_optimizer_step(self, step: int) -> dict[str, float]:
        """Measure the gradients, and keep the weights if their change is wanted."""
        if not self._due(step):
            return {}
        self._meet()
        trained = surgery.trainable(self.training.model)
        if "gradient" in self.config.of:
            gradients = {name: p.grad for name, p in trained.items() if p.grad is not None}
            self._gradients = self._norms("gradient", gradients)
        if "update" in self.config.of:
            self._before = {name: p.detach().clone() for name, p in trained.items()}
        return {}

    def after_optimizer_step(self, step: int) -> dict[str, float]:
        """Measure the weights, which have moved."""
        if not self._due(step):
            return {}
        trained = surgery.trainable(self.training.model)
        self.measured = dict(self._gradients)
        if "weight" in self.config.of:
            self.measured |= self._norms("weight", trained)
        for quantity, before in (("update", self._before), ("distance", self.start.tensors)):
            if quantity in self.config.of:
                # not of one that a method has just put in the place of another shape
                same = [n for n, p in trained.items() if n in before and before[n].shape == p.shape]
                moved = {name: trained[name].detach() - before[name] for name in same}
                self.measured |= self._norms(quantity, moved)
        self._before = {}
        return {}

    def on_train_end(self) -> None:
        """Log the last step."""
        self._log()

    def state_dict(self) -> dict[str, object]:
        """Return what is not logged yet, and where the weights began."""
        return {"measured": dict(self.measured), "start": self.start.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.measured = dict(state["measured"])
        self.start.load_state_dict(state["start"], self.training.model)

    def _due(self, step: int) -> bool:
        return step % self.config.every == 0 or step == self.training.num_steps

    def _log(self) -> None:
        if self.measured:
            self.training.tell(self.measured)
            self.measured = {}

    def _meet(self) -> None:
        if "distance" in self.config.of:
            self.start.meet(self.training.model)

    def _norms(self, quantity: str, tensors: "Mapping[str, Tensor]") -> dict[str, float]:
        found = _weights.norms(tensors, self.config.by)
        return {f"norms/{quantity}/{group}": value for group, value in found.items()}
