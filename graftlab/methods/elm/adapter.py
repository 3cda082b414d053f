"""The adapter of ELM: LayerNorm(W2 GELU(W1 e + b1) + b2 + residual P e), K tokens of each vector."""

# Shapes: N vectors, D numbers of a vector, M hidden, H numbers of a token, K tokens of a vector, V words.

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK = 8192  # tokens whose norms are computed at once


class Form(NamedTuple):
    """What the adapter's weights depend on."""

    width: int
    hidden: int
    token_width: int
    num_tokens: int
    dropout: float
    residual: float
    train_residual: bool


class Adapter(nn.Module):
    """Maps vectors to tokens."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.inner = nn.Linear(form.width, form.hidden)
        self.outer = nn.Linear(form.hidden, form.num_tokens * form.token_width)
        self.project: nn.Linear | None = None
        if form.residual and form.width != form.token_width:
            self.project = nn.Linear(form.width, form.token_width, bias=False)
        self.scale: nn.Parameter | None = None
        if form.train_residual:
            self.scale = nn.Parameter(torch.tensor(form.residual))
        self.norm = nn.LayerNorm(form.token_width)

    def forward(self, vectors_ND: Tensor) -> Tensor:
        """Return the tokens (N, K, H)."""
        form = self.form
        inner_NM = self._dropped(F.gelu(self.inner(vectors_ND)))
        made_NKH = self._dropped(self.outer(inner_NM)).unflatten(
            1, (form.num_tokens, form.token_width)
        )
        if form.residual:
            own_NH = vectors_ND if self.project is None else self.project(vectors_ND)
            scale = form.residual if self.scale is None else self.scale
            made_NKH = made_NKH + scale * own_NH[:, None]
        tokens_NKH: Tensor = self.norm(made_NKH)
        return tokens_NKH

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.form.dropout, self.training)

    @torch.no_grad()
    def begin(self, start: str, gain: float) -> None:
        """Set the weights that training begins with; they are drawn from torch's generator."""
        factor = 3.0 if start == "source" else 1.0
        for layer in (self.inner, self.outer):
            layer.weight.normal_(std=factor * math.sqrt(2 / layer.in_features))
            layer.bias.zero_()
        if start == "identity":
            self.outer.weight.zero_()
        if self.project is not None:  # keeps the length of a vector
            self.project.weight.normal_(std=math.sqrt(1 / self.form.token_width))
        self.norm.weight.fill_(gain)
        self.norm.bias.zero_()


@torch.no_grad()
def gain_like(embeddings: nn.Embedding) -> float:
    """Return the gain with which a LayerNorm's outputs are as long as the tokens are in the median.

    Its output has the length gain sqrt(H). Tokens go through the module, for some models scale them there.
    """
    weight_VH = embeddings.weight
    if weight_VH.is_meta:
        return 1.0
    places = torch.arange(len(weight_VH), device=weight_VH.device)
    norms = [embeddings(part).float().norm(dim=1) for part in places.split(CHUNK)]
    return float(torch.cat(norms).median()) / math.sqrt(weight_VH.shape[1])
