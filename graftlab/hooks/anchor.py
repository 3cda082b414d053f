"""A pull back to where training began: strength/2 ||w - w0||^2, added to the loss of every step.

Full fine-tuning with it stays near the pretrained weights, and forgets less (L2-SP: Li, Grandvalet and
Davoine 2018, Explicit inductive bias for transfer learning); of an adapter, w0 is its initialization. Unlike
weight decay it goes through the optimizer's moments, and pulls to the start instead of to zero.
"""

import re
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from graftlab.config import Section
from graftlab.contracts import Hook, Setting, Training
from graftlab.errors import ConfigError
from graftlab.hooks import _weights
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor

OBSERVES = False


class Config(Section):
    """How strong the pull is, and on what."""

    strength: float = Field(0.01, gt=0)
    """Of the pull (alpha in the paper). It is added once per step, to the mean loss of the batch."""
    weights: str = "."
    """Regular expression that is searched for in the names of trained weights; all unless given. A new head
    has no pretrained start: `^(?!classifier)` leaves one out."""

    @field_validator("weights")
    @classmethod
    def _is_an_expression(cls, weights: str) -> str:
        try:
            re.compile(weights)
        except re.error as error:
            raise ValueError(f"{weights!r} is no regular expression: {error}") from None
        return weights


def make(config: Config, setting: Setting) -> Hook:
    """Return the hook for a run."""
    return Anchor(config)


class Anchor(Hook):
    """Adds the pull to each step's loss, and logs it as `anchor/loss`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.start = _weights.Start(lambda name: bool(re.search(config.weights, name)))

    def on_train_start(self, training: Training) -> None:
        """Remember where the weights begin.

        Raises:
            ConfigError: none of them is meant.
        """
        self.model = training.model
        self.start.meet(self.model)
        if not self.start.tensors:
            names = sorted(_weights.plain(name) for name in surgery.trainable(self.model))
            raise ConfigError(
                f"hooks: anchor.weights {self.config.weights!r} is found in no name of what trains: "
                f"{', '.join(names[:3])}, ..."
            )

    def on_step_start(self, step: int) -> None:
        """Anchor what a method has made trainable meanwhile."""
        self.start.meet(self.model)

    def loss_terms(self, step: int) -> "dict[str, Tensor]":
        """Return strength/2 ||w - w0||^2 over the anchored weights that still train."""
        import torch

        trained = surgery.trainable(self.model)
        starts = {name: start for name, start in self.start.tensors.items() if name in trained}
        squares = [(trained[name] - start).square().sum() for name, start in starts.items()]
        return {"anchor/loss": self.config.strength / 2 * torch.stack(squares).sum()}

    def state_dict(self) -> dict[str, object]:
        """Return where the weights began."""
        return {"start": self.start.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.start.load_state_dict(state["start"], self.model)
