"""A quantized backbone without its weights: layers, shapes and scales as bitsandbytes makes them."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from graftlab.backbones import _quantization
from graftlab.contracts import Backbone
from graftlab.weights import quantized

if TYPE_CHECKING:
    from graftlab.runfile import RunFile

# Shapes: I in features, O out features.

BLOCK, BLOCK_OF_SCALES = 64, 256  # bitsandbytes' own, see its functional.quantize_4bit


def prepared(file: "RunFile", backbone: Backbone) -> Backbone:
    """Return a backbone on the meta device with the layers that `backbone.quantization` asks for."""
    section = getattr(file.backbone.config, "quantization", None)
    if section is None:
        return backbone
    from transformers.quantizers.auto import AutoHfQuantizer

    config = _quantization.fields(section)["quantization_config"]
    quantizer: Any = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer._process_model_before_weight_loading(backbone.model, device_map=None)
    quantizer._process_model_after_weight_loading(backbone.model)
    dtype = getattr(torch, file.backbone.config.dtype)
    for layer in quantized.layers(backbone.model).values():
        layer.weight.was = dtype  # type: ignore[union-attr]
        if isinstance(layer.bias, nn.Parameter):
            layer.bias.data = layer.bias.data.to(dtype)
    _quantization.prepare(backbone.model, backbone.head)
    return backbone


def holds(module: nn.Module) -> bool:
    """Return whether a module is a quantized layer itself, and not peft's around it of the same name."""
    return quantized.is_quantized(module) and "weight" in module._parameters


def pack(layer: Any, device: torch.device) -> None:
    """Put the tensors that hold a quantized layer's weight (O, I) in its place. Inside a fake mode."""
    shape = layer.weight.shape
    if type(layer.weight).__name__ == "Int8Params":
        weight = nn.Parameter(torch.empty(shape, dtype=torch.int8, device=device), False)
        held: Any = weight
        held.CB, held.SCB = weight.data, torch.empty(shape[0], device=device)
        layer.weight = weight
        layer.state.threshold = (
            0.0  # which inputs are outliers only their values tell; they are few
        )
        return
    from bitsandbytes.functional import QuantState

    number = shape.numel()
    scales = -(-number // BLOCK)
    state2 = None
    if layer.weight.compress_statistics:
        groups = torch.empty(-(-scales // BLOCK_OF_SCALES), device=device)
        code = torch.empty(256, device=device)
        state2 = QuantState(groups, code=code, blocksize=BLOCK_OF_SCALES, dtype=torch.float32)
    kind = torch.float32 if state2 is None else torch.uint8
    state = QuantState(
        torch.empty(scales, dtype=kind, device=device),
        shape=shape,
        code=torch.empty(16, device=device),
        blocksize=BLOCK,
        quant_type=layer.weight.quant_type,
        dtype=layer.weight.was,
        offset=None if state2 is None else torch.empty(1, device=device)[0],
        state2=state2,
    )
    packed: Any = nn.Parameter(
        torch.empty(-(-number // 2), 1, dtype=torch.uint8, device=device), False
    )
    packed.quant_state = state
    layer.weight = packed


def scales(model: nn.Module) -> list[torch.Tensor]:
    """Return the tensors of quantized layers that are neither parameters nor buffers."""
    found = []
    for layer in filter(holds, model.modules()):
        weight: Any = layer.weight
        state = getattr(weight, "quant_state", None)
        if state is None:
            kept: Any = layer.state
            found += [weight.SCB if getattr(weight, "SCB", None) is not None else kept.SCB]
            continue
        found += [state.absmax, state.code]
        found += [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]
