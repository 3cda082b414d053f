"""Weights that bitsandbytes holds in 4 or 8 bits: kept readable, read, and put back into plain layers."""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

# Shapes: I in features, O out features.

LAYERS = ("Linear4bit", "Linear8bitLt")
KERNELS = "bitsandbytes.autograd._functions"
"""The logger of its kernels."""
STATE = "quant_state.bitsandbytes__"
"""What the name of a 4-bit weight's record in a checkpoint begins with, after the weight's own."""
HOOKS = "graftlab_float32_hooks"
"""The attribute of a norm with the handles of what makes it compute in float32."""


class Once(logging.Filter):
    """Lets each message through once: kernels in 8 bits say at every layer of every step what they cast."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._said
        self._said.add(message)
        return new


def say_once() -> None:
    """Have bitsandbytes say each thing once."""
    logger = logging.getLogger(KERNELS)
    if not any(isinstance(other, Once) for other in logger.filters):
        logger.addFilter(Once())


def is_quantized(module: object) -> bool:
    """Return whether a layer's weight is one of bitsandbytes'."""
    return any(cls.__name__ in LAYERS for cls in type(module).__mro__)


def layers(model: "nn.Module") -> "dict[str, nn.Module]":
    """Return the quantized layers by name."""
    return {name: module for name, module in model.named_modules() if is_quantized(module)}


def numel(parameter: "Tensor") -> int:
    """Return how many numbers a parameter stands for: of a 4-bit weight, two in each byte."""
    packed = type(parameter).__name__ == "Params4bit" and getattr(parameter, "bnb_quantized", False)
    return parameter.numel() * parameter.element_size() * 2 if packed else parameter.numel()


def nbytes(layer: Any) -> int:
    """Return the bytes of a quantized layer's weight with its scales, without its bias."""
    weight = layer.weight
    state = getattr(weight, "quant_state", None)
    if state is None:  # 8 bits: a float32 scale for each row
        scales = weight.SCB if getattr(weight, "SCB", None) is not None else layer.state.SCB
        return int(weight.nbytes + scales.nbytes)
    nested = state.state2.absmax.nbytes if state.nested else 0
    return int(weight.nbytes + state.absmax.nbytes + nested)


def keep_readable(layer: object) -> None:
    """Stop a 4-bit layer from packing its weight for inference.

    bitsandbytes 0.50 does so on CPUs with bfloat16 instructions at the first forward pass in eval mode. A
    packed weight lets no gradient through and cannot be read any more.

    Raises:
        ValueError: it has been packed already.
    """
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        raise ValueError(
            "bitsandbytes has packed this model's 4-bit weights for inference, after which they cannot be "
            "trained on nor read. Load the model anew, and put the adapter on before it is evaluated."
        )
    if hasattr(layer, "support_avx512bf16_for_cpu"):
        layer.support_avx512bf16_for_cpu = False


def weight(layer: Any) -> "Tensor":
    """Return a layer's weight as it computes with it: dequantized to float32 (O, I), or as it is."""
    if not is_quantized(layer):
        plain: Tensor = layer.weight.detach()
        return plain
    from bitsandbytes import functional

    held = layer.weight
    if hasattr(held, "quant_state"):
        keep_readable(layer)
        read: Tensor = functional.dequantize_4bit(held.data, held.quant_state)
    else:
        scales = held.SCB if getattr(held, "SCB", None) is not None else layer.state.SCB
        read = functional.int8_vectorwise_dequant(held.data, scales)
    return read.float()


def read(stored: "Mapping[str, Tensor]") -> "Tensor | None":
    """Return a weight as it is stored in a checkpoint, dequantized to float32 (O, I); None of other formats.

    `stored` has it under `weight`, and what stands beside it there: `weight.absmax`, ... of 4 bits, and
    `SCB` of 8.
    """
    from bitsandbytes import functional

    if (scales := stored.get("SCB")) is not None:
        return functional.int8_vectorwise_dequant(stored["weight"], scales).float()
    beside = {name: tensor for name, tensor in stored.items() if name != "weight"}
    if not any(STATE in name for name in beside):
        return None
    state = functional.QuantState.from_dict(beside, device=stored["weight"].device)
    found: Tensor = functional.dequantize_4bit(stored["weight"], state)
    return found.float()


def shape(state: "Tensor") -> tuple[int, ...]:
    """Return the shape that a 4-bit weight stands for, by the record that is stored beside it."""
    return tuple(json.loads(bytes(state.tolist()))["shape"])


def dequantize(model: Any) -> None:
    """Put a plain layer, in float32 and frozen, in the place of each quantized one.

    transformers' own `dequantize` leaves a Linear where the architecture has a Conv1D (GPT-2), whose
    weight it would then write the wrong way round.
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, layer in layers(model).items():
        weight_OI: Any = weight(layer)
        old: Any = layer
        with torch.device("meta"):
            if getattr(old, "source_cls", nn.Linear) is Conv1D:
                new: Any = Conv1D(old.out_features, old.in_features)
                weight_OI = weight_OI.T.contiguous()
            else:
                new = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
        new.weight = nn.Parameter(weight_OI, requires_grad=False)
        if old.bias is not None:
            new.bias = nn.Parameter(old.bias.detach().float(), requires_grad=False)
        model.set_submodule(name, new.train(old.training))
    for module in model.modules():
        for handle in vars(module).pop(HOOKS, ()):
            handle.remove()
    for mark in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        vars(model).pop(mark, None)
    model.is_quantized = False
    for mark in ("quantization_config", "_pre_quantization_dtype"):
        vars(model.config).pop(mark, None)
