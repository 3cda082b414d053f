"""One frozen decoder layer as a module: hidden states in, hidden states out, as in its own model."""

from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graftlab.errors import ModelError
from graftlab.weights.layers import anatomy


class Layer(nn.Module):
    """A decoder layer with what its model computes for it: mask, positions, rotary embeddings.

    It stays in evaluation mode (Falcon and GPT-2 have dropout) and begins without gradients of its own;
    gradients flow through it.
    """

    shell: PreTrainedModel

    def __init__(self, block: nn.Module, shell: PreTrainedModel, record: dict[str, object]) -> None:
        super().__init__()
        self.block = block
        # Not a submodule: it has no weights, and a model inside a model confuses transformers. What it
        # has of buffers is registered, so that it moves with the layer.
        self.__dict__["shell"] = shell
        self.buffers_around = nn.ModuleList(
            module for module in shell.children() if any(True for _ in module.buffers())
        )
        self.record = record
        self.requires_grad_(False)
        self.eval()

    @property
    def index(self) -> int:
        return int(str(self.record["index"]))

    @property
    def sha256(self) -> str:
        """Hash over names, dtypes, shapes and bytes of its tensors as the checkpoint stores them."""
        return str(self.record["sha256"])

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the model around it does."""
        return super().train(False)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return (B, T, d) hidden states after the layer, from those before it.

        `attention_mask` (B, T) has 0 where there is padding, on either side. Causality, sliding window
        and positions are those of the layer's own model.

        Raises:
            ModelError: more than one token for a layer that was read without queries and keys.
        """
        if self.record["pooled"] and hidden.shape[1] != 1:
            raise ModelError(
                f"layer {self.index} of {self.record['source']} was read without its query and key "
                f"matrices, for sequences of one; this one has {hidden.shape[1]}. Load it with "
                f"pooled=False."
            )
        with torch.no_grad():
            called = anatomy.call(self.shell, hidden.detach(), attention_mask)
        output = self.block(hidden, *called.arguments, **called.named)
        return output[0] if isinstance(output, (tuple, list)) else output

    def pooled(self, vectors: Tensor) -> Tensor:
        """Return (B, d) from (B, d): each vector is a sequence of one token at position 0."""
        return self(vectors[:, None])[:, 0]
