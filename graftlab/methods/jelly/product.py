"""The low-rank correction of a layer's own output, s B A h with h = W x, at the memory of LoRA's.

Autograd would keep h for the gradient of A. Keeping x, which the layer has anyway, is enough:
dL/dA = (s B' d' x) W', where d is the gradient of the correction: a product of R rows.
"""

# Shapes: N examples or tokens (any leading axes), I in features, O out features, R rank.

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class Correction(torch.autograd.Function):
    """s B A h (N, O), differentiable once in h (N, O), A (R, O) and B (O, R); x (N, I) is only kept.

    `weight()` returns the frozen W (O, I), dequantised if it has to be: it is called in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        a_RO: Tensor,
        b_OR: Tensor,
        scaling: float,
        weight: Callable[[], Tensor],
    ) -> Tensor:
        if not torch.is_autocast_enabled(h.device.type):
            h = h.to(a_RO.dtype)
        u_NR = linear(h, a_RO)
        ctx.save_for_backward(x, u_NR, a_RO, b_OR)
        ctx.scaling, ctx.weight = scaling, weight
        return linear(u_NR * scaling, b_OR)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, u, a_RO, b_OR = ctx.saved_tensors
        dtype = u.dtype
        shape = gradient.shape
        gradient_NO = gradient.reshape(-1, shape[-1]).to(dtype)
        du_NR = (gradient_NO @ b_OR.to(dtype)) * ctx.scaling
        da = db = dh = None
        if ctx.needs_input_grad[1]:
            dh = (du_NR @ a_RO.to(dtype)).reshape(shape)
        if ctx.needs_input_grad[2]:
            w_OI = ctx.weight()
            du_x_RI = du_NR.T @ x.reshape(-1, x.shape[-1]).to(dtype)
            da = linear(du_x_RI.to(w_OI.dtype), w_OI).to(a_RO.dtype)
        if ctx.needs_input_grad[3]:
            db = (gradient_NO.T @ u.reshape(-1, u.shape[-1]) * ctx.scaling).to(b_OR.dtype)
        return None, dh, da, db, None, None


def output_and_product(
    layer: nn.Module, x: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Return a layer's output W x + b and its product h = W x, both (N, O), at the cost of one."""
    if type(layer) is nn.Linear and not _has_hooks(layer):
        h = linear(x, layer.weight)
        return (h if layer.bias is None else h + layer.bias.to(h.dtype)), h
    y = layer(x, *args, **kwargs)
    bias: Any = layer.bias
    return (y, y) if bias is None else (y, y - bias.to(y.dtype))


def _has_hooks(module: nn.Module) -> bool:
    """Return whether somebody wants to see, or to move, this module's inputs and outputs."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or hasattr(module, "_hf_hook")
    )
