"""The low-rank correction of a layer's own output, s B A h with h = W x, at the cost of LoRA's.

Autograd would keep h for the gradient of A. Keeping x, which the layer has anyway, is enough:
dL/dA = (s B' d' x) W', where d is the gradient of the correction: a product of R rows.
"""

# Shapes: N examples or tokens (any leading axes), I in features, O out features, R rank.

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class _Context(Protocol):
    """What the forward pass leaves for the backward pass."""

    scaling: float
    weight: Callable[[], Tensor]
    whole: bool
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class Correction(torch.autograd.Function):
    """s B A h (N, O), differentiable once in h (N, O), A (R, O) and B (O, R); x (N, I) is only kept.

    With `whole` it is the layer's output, h + bias + s B A h: summed by the product itself, and so is the
    gradient of h, without which they would each be read and written twice more. `bias` (O,) is frozen.
    `weight()` returns the frozen W (O, I), dequantized if it has to be: it is called in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        x: Tensor,
        h: Tensor,
        a_RO: Tensor,
        b_OR: Tensor,
        scaling: float,
        weight: Callable[[], Tensor],
        whole: bool = False,
        bias: Tensor | None = None,
    ) -> Tensor:
        read = h if torch.is_autocast_enabled(h.device.type) else h.to(a_RO.dtype)
        u_NR = linear(read, a_RO)
        ctx.save_for_backward(x, u_NR, a_RO, b_OR)
        ctx.scaling, ctx.weight, ctx.whole = scaling, weight, whole
        scaled_NR = u_NR * scaling
        if not whole:
            return linear(scaled_NR, b_OR)
        y = h if bias is None else h + bias.to(h.dtype)
        if y.dtype != u_NR.dtype:
            return y + linear(scaled_NR, b_OR)
        flat_NO, b_RO = y.reshape(-1, y.shape[-1]), b_OR.to(y.dtype).T
        scaled_NR = scaled_NR.reshape(len(flat_NO), -1)
        if y is h:
            return torch.addmm(flat_NO, scaled_NR, b_RO).view(y.shape)
        return flat_NO.addmm_(scaled_NR, b_RO).view(y.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, u, a_RO, b_OR = ctx.saved_tensors
        dtype = u.dtype
        shape = gradient.shape
        gradient_NO = gradient.reshape(-1, shape[-1]).to(dtype)
        du_NR = (gradient_NO @ b_OR.to(dtype)) * ctx.scaling
        da = db = dh = None
        if ctx.needs_input_grad[1]:
            a = a_RO.to(dtype)
            dh = torch.addmm(gradient_NO, du_NR, a) if ctx.whole else du_NR @ a
            dh = dh.reshape(shape)
        if ctx.needs_input_grad[2]:
            w_OI = ctx.weight()
            du_x_RI = du_NR.T @ x.reshape(-1, x.shape[-1]).to(dtype)
            da = linear(du_x_RI.to(w_OI.dtype), w_OI).to(a_RO.dtype)
        if ctx.needs_input_grad[3]:
            db = (gradient_NO.T @ u.reshape(-1, u.shape[-1]) * ctx.scaling).to(b_OR.dtype)
        return None, dh, da, db, None, None, None, None


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer's output is W x + b with a frozen b, and nobody looks on."""
    if type(layer) is not nn.Linear or _has_hooks(layer):
        return False
    return layer.bias is None or not layer.bias.requires_grad


def without_bias(layer: nn.Module, y: Tensor) -> Tensor:
    """Return a layer's product W x from its output W x + b, both (N, O)."""
    bias: Tensor | None = layer.bias  # type: ignore[assignment]  # of a Linear, or transformers' Conv1D
    return y if bias is None else y - bias.to(y.dtype)


def _has_hooks(module: nn.Module) -> bool:
    """Return whether somebody wants to see, or to move, this module's inputs and outputs."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or hasattr(module, "_hf_hook")
    )
