"""Whether the adapter still tells vectors apart: its outputs' spread, cosine and length, step by step."""

# Shapes: N vectors of a micro-batch, D numbers of a vector, K tokens of a vector, H numbers of a token.

import logging
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftlab.contracts import Hook, Training

if TYPE_CHECKING:
    from graftlab.methods.elm.model import ElmForCausalLM

log = logging.getLogger("graftlab")
ALIKE = 0.98
"""Mean cosine of the tokens of different vectors from which on they are taken for one."""
FURTHER = 0.05
"""By how much more than the vectors themselves tokens must be alike: some models' vectors all are."""


class Watch(Hook):
    """Logs, of a step's last micro-batch on this process, how its vectors' tokens lie to each other."""

    def __init__(self) -> None:
        self._passed: tuple[Tensor, Tensor] | None = None
        self._warned = False

    def on_train_start(self, training: Training) -> None:
        """Watch what goes through the adapter."""
        cast("ElmForCausalLM", training.model).adapter.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training:
            self._passed = inputs[0].detach(), output.detach()

    def after_optimizer_step(self, step: int) -> dict[str, float]:
        """Return mean length, mean cosine and spread, and warn once where all tokens have become alike."""
        if self._passed is None:
            return {}
        vectors_ND, tokens_NKH = self._passed
        self._passed = None
        tokens_ND = tokens_NKH.flatten(1).float()
        found = {"elm/norm": tokens_NKH.float().norm(dim=-1).mean().item()}
        other_NN = ~(vectors_ND[:, None] == vectors_ND[None]).all(-1)
        if not bool(other_NN.any()):
            return found
        found["elm/cosine"] = cosine = mean_cosine(tokens_ND, other_NN)
        found["elm/spread"] = spread(tokens_ND)
        own = mean_cosine(vectors_ND.float(), other_NN)
        if cosine > max(ALIKE, own + FURTHER) and not self._warned:
            self._warned = True
            log.warning(
                "step %d: the adapter's outputs for different vectors have become alike (mean cosine %.3f, "
                "of the vectors %.3f): the language model cannot tell them apart. Set "
                "training.learning_rate lower, method.residual higher, or method.contrastive to 0.01.",
                step, cosine, own,
            )  # fmt: skip
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"warned": self._warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._warned = state["warned"]


def mean_cosine(rows_ND: Tensor, wanted_NN: Tensor) -> float:
    """Return the mean cosine of the pairs that are wanted."""
    unit_ND = F.normalize(rows_ND, dim=1)
    cosine_NN = (unit_ND @ unit_ND.T) * wanted_NN
    return (cosine_NN.sum() / wanted_NN.sum()).item()


def spread(rows_ND: Tensor) -> float:
    """Return how far rows are from their mean, over how long they are: 0 where all are one."""
    away = (rows_ND - rows_ND.mean(0)).square().sum(1).mean()
    return torch.sqrt(away / rows_ND.square().sum(1).mean()).item()
