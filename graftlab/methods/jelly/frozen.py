"""A layer's frozen weight: read if it is quantized, changed by merging, and put back bit for bit."""

import copy
import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_bnb_weight
from peft.utils.quantization_utils import Bnb4bitBackend, Bnb8bitBackend
from torch import Tensor


class Kept:
    """The frozen weight of a tuner layer, quantized if it is, without a copy of its numbers.

    Merging gives the layer new numbers; the old ones stay here until they are put back.
    """

    def __init__(self, layer: BaseTunerLayer) -> None:
        base: Any = layer.get_base_layer()
        self.backend = layer.quantization_backend
        self.parameter: Any = base.weight
        self.numbers: Tensor = self.parameter.data
        self.state: object = None
        if isinstance(self.backend, Bnb8bitBackend):
            self.backend.get_base_weight(base)  # moves the scales into the state
            self.state = copy.copy(base.state)

    def read(self) -> Tensor:
        """Return the weight, dequantized if need be."""
        if self.backend is None:
            return self.numbers
        return dequantize_bnb_weight(self.parameter, state=self.state)

    def put_back(self, layer: BaseTunerLayer) -> None:
        """Let the layer have its weight again."""
        base: Any = layer.get_base_layer()
        base.weight = self.parameter
        self.parameter.data = self.numbers
        if isinstance(self.backend, Bnb8bitBackend):
            base.state = self.state
        elif isinstance(self.backend, Bnb4bitBackend):
            # peft 0.21.2 writes False here when it makes the merged weight from the fields of this
            # one; the next `.to()` would quantize what is quantized already
            self.parameter.bnb_quantized = True
            base.quant_state = self.parameter.quant_state


@torch.no_grad()
def merge(layer: BaseTunerLayer, changes: dict[str, Tensor], safe: bool) -> Kept:
    """Add the changes, by adapter, to the layer's weight, and return the weight as it was.

    Raises:
        ValueError: with `safe`, a change is not finite; nothing has been merged then.
    """
    weight = layer.get_base_weight().clone()
    for name, change in changes.items():
        weight += change.to(weight.device, weight.dtype)
        if safe and not weight.isfinite().all():
            raise ValueError(f"NaNs detected in the adapter {name}: it cannot be merged")
    if layer.quantization_backend is not None:
        kind = layer.quantization_backend.backend_name
        warnings.warn(f"a {kind} weight that is merged into is rounded anew", stacklevel=3)
    kept = Kept(layer)
    layer.set_base_weight(weight)
    return kept
