"""What learns: a model with the weights that train, and the optimizer that moves them."""

from typing import TYPE_CHECKING

from graftlab.training import optimizer, resume
from graftlab.training.config import Config
from graftlab.training.parts import Parts
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn


class Learner:
    """The adapted model in this process's share, with its optimizer."""

    def __init__(self, parts: Parts, config: Config) -> None:
        self.parts, self.config = parts, config
        self.model = parts.attached.model
        sharding = parts.processes.sharding
        sharding.shard(self.model, parts.accelerator.device, bool(parts.attached.hooks))
        self.optimizer = optimizer.build(self._groups(), config.optimizer)
        self._whole = sharding.begin(self.model, self.optimizer, config)
        self.forward = self._compiled()
        self.buffers: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Be ready for the first step, or for the first one after a resume."""
        self.model.train()
        self.buffers = resume.buffers(self.model)

    def renew(self) -> None:
        """Renew groups, buffers and compiled graph after a method made other parameters trainable.

        Those of the main process are sent to the others, for whom a factorisation may have come out
        otherwise in its last bits.
        """
        optimizer.replace_groups(self.optimizer, self._groups())
        self.forward, self.buffers = self._compiled(), resume.buffers(self.model)
        self.parts.processes.send(surgery.trainable(self.model) | self.buffers)

    def _groups(self) -> list[optimizer.Group]:
        rates, parameters = dict(self.parts.attached.rates), surgery.trainable(self.model)
        if self.config.head_learning_rate is not None:
            ratio = self.config.head_learning_rate / self.config.learning_rate
            rates |= {name: ratio for name in parameters if self._in_head(name)}
        return optimizer.groups(parameters, self.config.optimizer, rates)

    def _in_head(self, name: str) -> bool:
        """Return whether a parameter is the head's, also where PEFT has put its own names around it."""
        return any(f".{module}." in f".{name}" for module in self.parts.head)

    def _compiled(self) -> "nn.Module":
        """Return the model as the forward pass sees it."""
        if not self.config.compile:
            return self._whole
        import torch

        compiled: nn.Module = torch.compile(self._whole)  # type: ignore[assignment]
        return compiled
