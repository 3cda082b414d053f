"""Cross-entropy that computes its gradient with its value, a few tokens at a time."""

from typing import Any

import torch
from torch import Tensor

# Shapes: M tokens, V vocabulary.


class CrossEntropy(torch.autograd.Function):
    """The loss of each token (M) in float32, of logits (M, V) in any precision.

    d loss / d logits is softmax(logits) - target, where smoothing has the target give 1 - s to the label and
    s / V to every token (Szegedy et al., 2016). It is all that is kept for the backward pass: as much as the
    logits, which nobody needs any more, and no softmax is computed twice.
    """

    @staticmethod
    def forward(
        context: Any, logits_MV: Tensor, labels_M: Tensor, label_smoothing: float, chunk: int
    ) -> Tensor:
        """Return the losses; `chunk` tokens are held in float32 at once."""
        losses_M = logits_MV.new_empty(len(labels_M), dtype=torch.float32)
        wanted = context.needs_input_grad[0]
        slopes_MV = torch.empty_like(logits_MV) if wanted else None
        for start in range(0, len(labels_M), chunk):
            place = slice(start, start + chunk)
            log_shares = logits_MV[place].float().log_softmax(-1)
            labels = labels_M[place, None]
            found = log_shares.gather(1, labels)[:, 0] * (label_smoothing - 1)
            if label_smoothing:
                found -= label_smoothing * log_shares.mean(-1)
            losses_M[place] = found
            if slopes_MV is not None:
                in_float32 = slopes_MV.dtype == torch.float32
                slopes = torch.exp(log_shares, out=slopes_MV[place] if in_float32 else log_shares)
                if label_smoothing:
                    slopes -= label_smoothing / slopes.shape[-1]
                slopes.scatter_add_(1, labels, slopes.new_full(labels.shape, label_smoothing - 1))
                if not in_float32:
                    slopes_MV[place] = slopes
        context.save_for_backward(slopes_MV)
        return losses_M

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> object:
        """Return the gradient of the logits (M, V)."""
        (slopes_MV,) = context.saved_tensors
        return slopes_MV * gradients[0][:, None].to(slopes_MV.dtype), None, None, None
