"""What ELM adds to cross-entropy where that is asked: drift, and InfoNCE between vectors and their tokens."""

# Shapes: N vectors of a micro-batch, D numbers of a vector and of a token, K tokens of a vector, L tokens.

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftlab.contracts import Hook, MicroBatch, Training

if TYPE_CHECKING:
    from graftlab.methods.elm.config import Config
    from graftlab.methods.elm.model import ElmForCausalLM


class Losses(Hook):
    """Adds the losses of a section, each weighed, as means over examples."""

    def __init__(self, config: "Config") -> None:
        self._config = config
        self._passed: tuple[Tensor, Tensor] | None = None  # vectors_ND, tokens_NKD
        self._states_NLD: Tensor | None = None

    def on_train_start(self, training: Training) -> None:
        """Watch what goes through the adapter and, where drift is of the LLM's states, what it puts out."""
        model = cast("ElmForCausalLM", training.model)
        model.adapter.register_forward_hook(self._keep)
        if self._config.drift == "hidden":
            model.llm.base_model.register_forward_hook(self._keep_states)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._passed = (inputs[0], output) if module.training else None

    def _keep_states(self, module: nn.Module, inputs: object, output: object) -> None:
        states = getattr(output, "last_hidden_state", None)
        self._states_NLD = states if module.training else None

    def micro_batch_losses(self, micro: MicroBatch) -> dict[str, Tensor]:
        config, passed = self._config, self._passed
        assert passed is not None, "the adapter has not been asked in this pass"
        found: dict[str, tuple[float, Tensor]] = {}
        if config.drift == "adapter":
            lost = adapter_drift(*passed, config.drift_target)
            found["drift"] = config.drift_weight, lost
        if config.drift == "hidden":
            assert self._states_NLD is not None, "the LLM has not been asked in this pass"
            lost = hidden_drift(self._states_NLD, passed[0])
            found["drift"] = config.drift_weight, lost
        if config.contrastive:
            found["contrastive"] = config.contrastive, info_nce(*passed, config.temperature)
        self._passed = self._states_NLD = None  # their graphs are not needed any more
        return {name: micro.per_example(weight * loss) for name, (weight, loss) in found.items()}


def adapter_drift(vectors_ND: Tensor, tokens_NKD: Tensor, target: float) -> Tensor:
    """Return the sum over vectors of max(0, target - cos(o, e)), o the mean of a vector's tokens."""
    cosine_N = F.cosine_similarity(tokens_NKD.float().mean(1), vectors_ND.float(), dim=1)
    return (target - cosine_N).clamp(min=0).sum()


def hidden_drift(states_NLD: Tensor, vectors_ND: Tensor) -> Tensor:
    """Return the sum over vectors of 1 - cos(mean of the last states, e), as the source has it: over prompts
    and padding too."""
    cosine_N = F.cosine_similarity(states_NLD.float().mean(1), vectors_ND.float(), dim=1)
    return (1 - cosine_N).sum()


def info_nce(vectors_ND: Tensor, tokens_NKD: Tensor, temperature: float) -> Tensor:
    """Return the sum over vectors of -log softmax_j(cos(o_i, e_j) / temperature) at j = i.

    The others are those of the micro-batch. A vector that stands there twice is no other of itself.
    """
    means_ND = F.normalize(tokens_NKD.float().mean(1), dim=1)
    scores_NN = means_ND @ F.normalize(vectors_ND.float(), dim=1).T / temperature
    same_NN = (vectors_ND[:, None] == vectors_ND[None]).all(-1)
    same_NN &= ~torch.eye(len(same_NN), dtype=torch.bool, device=same_NN.device)
    own_N = torch.arange(len(scores_NN), device=scores_NN.device)
    return F.cross_entropy(scores_NN.masked_fill(same_NN, -torch.inf), own_N, reduction="sum")
