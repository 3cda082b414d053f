"""A frozen backbone in 4 or 8 bits, after QLoRA (Dettmers et al., 2023, arXiv 2305.14314).

The linear layers of the blocks are quantized; embeddings, norms, the language head and the task's head are
not. Norms compute in float32 whatever the rest has, and so does all that trains.
"""

import functools
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from graftlab.backbones import _pretrained
from graftlab.config import Conflict, Section
from graftlab.errors import Fault, missing_extra, wrong
from graftlab.weights import quantized, surgery

if TYPE_CHECKING:
    from torch import Tensor, nn


BLOCK, NESTED = (
    64,
    256,
)  # weights that share a scale, and scales that share one (bitsandbytes' defaults)


class Quantization(Section):
    """In how many bits the frozen weights are held."""

    bits: Literal[4, 8]
    """4: blocks of 64 weights share a scale (QLoRA). 8: each row has its scale (LLM.int8)."""
    type: Literal["nf4", "fp4"] = "nf4"
    """With 4 bits: the levels are those of a normal distribution (nf4), or floating point (fp4)."""
    double: bool = True
    """With 4 bits: quantize the scales too, which saves 0.37 bits a weight."""
    compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """With 4 bits: the number format that a dequantized weight is multiplied in."""

    @model_validator(mode="after")
    def _of_four_bits(self) -> "Quantization":
        # a run's own config.yaml gives every field: the defaults do nothing, and are no request
        fields = type(self).model_fields
        names = ("type", "double", "compute_dtype")
        idle = [name for name in names if getattr(self, name) != fields[name].default]
        if self.bits == 8 and idle:
            raise Conflict(idle[0], f"{', '.join(idle)} does nothing with bits 8; it needs bits 4")
        return self


def check(quantization: Quantization | None) -> list[Fault]:
    """Return what is missing, without importing it."""
    if quantization is not None and find_spec("bitsandbytes") is None:
        said = missing_extra("backbone.quantization", "bitsandbytes", "quantized")
        return [wrong("quantization", said, kind="not_installed")]
    return []


def fields(quantization: Quantization) -> dict[str, Any]:
    """Return what `from_pretrained` has to be told.

    transformers leaves out the language head, what is tied to the embeddings, and the head of a classifier.
    """
    import torch
    from transformers import BitsAndBytesConfig

    quantized.say_once()
    if quantization.bits == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=getattr(torch, quantization.compute_dtype),
    )
    return {"quantization_config": config}


def prepare(model: "nn.Module", head: tuple[str, ...]) -> None:
    """Make a model that was just loaded fit for training on: weights readable, norms in float32."""
    found = quantized.layers(model)
    assert found, "no linear layer was quantized"
    assert not [name for name in found if name.startswith(head or ("no head",))], head
    for layer in found.values():
        quantized.keep_readable(layer)
    for module in model.modules():
        if _is_norm(module):
            _compute_in_float32(module)


def record(model: "nn.Module", quantization: Quantization) -> dict[str, object]:
    """Return what a run keeps of it: the section, how many layers, and the bytes of their weights.

    `model` is quantized, or on the meta device, before it is; both give the same.
    """
    held = quantized.layers(model)
    if held:
        sizes = [quantized.nbytes(layer) for layer in held.values()]
    else:
        plain = surgery.linear_layers(model, _pretrained.outside_base(model))
        sizes = [_planned_nbytes(layer, quantization) for layer in plain.values()]
    return {**quantization.model_dump(), "layers": len(sizes), "bytes": sum(sizes)}


def _planned_nbytes(layer: Any, quantization: Quantization) -> int:
    """Return the bytes that a layer's weight will take with its scales, as bitsandbytes holds them."""
    numbers: int = layer.weight.numel()
    if quantization.bits == 8:
        return numbers + 4 * int(layer.nf if surgery.is_conv1d(layer) else layer.out_features)
    blocks = -(-numbers // BLOCK)
    scales = blocks + 4 * -(-blocks // NESTED) if quantization.double else 4 * blocks
    return -(-numbers // 2) + scales


def _is_norm(module: "nn.Module") -> bool:
    own = list(module.parameters(recurse=False))
    return "Norm" in type(module).__name__ and all(parameter.dim() == 1 for parameter in own)


def _compute_in_float32(module: "nn.Module") -> None:
    import torch

    lower = {p.dtype for p in module.parameters(recurse=False)} - {torch.float32}
    if not lower:
        return
    module.float()
    narrow = functools.partial(_narrow, dtype=lower.pop())
    handles = (module.register_forward_pre_hook(_widen), module.register_forward_hook(narrow))
    vars(module)[quantized.HOOKS] = handles


def _widen(module: "nn.Module", inputs: tuple[Any, ...]) -> tuple[object, ...]:
    return tuple(x.float() if getattr(x, "is_floating_point", bool)() else x for x in inputs)


def _narrow(module: "nn.Module", inputs: object, output: "Tensor", *, dtype: Any) -> "Tensor":
    return output.to(dtype)
