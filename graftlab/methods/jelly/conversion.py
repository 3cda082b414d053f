"""A layer's sequential adapter turned into a parallel one, in place."""

# Shapes: I in features, O out features, R rank.

import torch

from graftlab.methods.jelly import projections
from graftlab.methods.jelly.forms import Change, Form
from graftlab.methods.jelly.layer import JellyLinear


@torch.no_grad()
def switch(
    layer: JellyLinear, adapter: str, method: str, step: int, generator: torch.Generator
) -> Change:
    """Let a sequential adapter be parallel from here on; `generator` (CPU) draws a fresh A.

    Source: JELLY, "Merge-and-Reinit"; the methods are those of `projections`, and for
    `merge_reinit` what was learned becomes the frozen pair.

    Raises:
        ValueError: `none` keeps A, whose shape does not fit if the layer is not square.
    """
    # copies: both are overwritten in place
    a_RO, b_OR = layer.jelly_A[adapter].detach().clone(), layer.jelly_B[adapter].detach().clone()
    w_OI = layer.frozen_weight()
    pulled_RI = projections.pull_back(a_RO, w_OI)
    before = (b_OR.double(), pulled_RI)
    rank_before, size = projections.effective_rank(a_RO), float(b_OR.norm())
    new_a, new_b = pulled_RI, b_OR
    if method != "exact":
        new_a, new_b = projections.convert(method, a_RO, b_OR, w_OI, generator)
    layer.take_form(adapter, Form(False, step, method))
    if method == "merge_reinit":
        layer.jelly_merged_A[adapter].copy_(pulled_RI)
        layer.jelly_merged_B[adapter].copy_(b_OR)
    layer.replace_A(adapter, new_a)
    layer.jelly_B[adapter].data.copy_(new_b)
    for parameter in (layer.jelly_A[adapter], layer.jelly_B[adapter]):
        parameter.grad = None
    layer.forget_gradient(adapter)
    new_size = float(layer.jelly_B[adapter].norm())
    return Change(
        projections.relative_change(before, layer.factors(adapter, scaled=False)),
        (rank_before, projections.effective_rank(layer.jelly_A[adapter].detach())),
        new_size / size if size else 1.0,
    )
