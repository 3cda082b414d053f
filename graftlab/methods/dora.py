"""DoRA: LoRA for the direction of each row of W and a trained magnitude, W' = m (W + s B A) / ||W + s B A||.

Liu et al., 2024, arXiv 2402.09353, equation 5; the norm is held constant in the backward pass (equation 11).
Its change has full rank, so it has no exact form as plain LoRA.
"""

# Shapes: I in features, O out features, R rank.

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab import adapters
from graftlab.adapters import low_rank
from graftlab.contracts import Attached, Backbone, Setting
from graftlab.weights import quantized, surgery

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn


class Config(adapters.LowRank):
    """Weight-decomposed low-rank adaptation."""


def on_quantized(config: Config, bits: int) -> str | None:
    """Return why it does not fit frozen weights in so many bits; None where it does."""
    if (
        bits == 8
    ):  # peft 0.21.2 moves the weight that it reads, and the copy has no scales (on a CPU)
        return "8-bit layers lose their scales when peft reads their weights; 4 bits will do"
    return None


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with A, B and the magnitudes on its target layers.

    Raises:
        ConfigError: no layer matches, or the rank is larger than one of them.
        ModelError: `start_from` holds no fitting adapter.
    """
    return low_rank.attach(backbone, config, setting, use_dora=True)


check = adapters.check_start
save = adapters.save
off = adapters.off
merge = low_rank.merge


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved adapter."""
    return adapters.load(backbone, folder)


def deltas(model: "PeftModel") -> "Iterator[tuple[str, Tensor]]":
    """Yield the name of each adapted weight and its change W' - W, dense, in the weight's own layout."""
    for name, layer in low_rank.lora_layers(model).items():
        base = layer.get_base_layer()
        transposed = surgery.is_conv1d(base)
        weight_OI = quantized.weight(base).T if transposed else quantized.weight(base)
        b_OR, a_RI = low_rank.factors(layer)
        moved_OI = weight_OI.float() + b_OR @ a_RI
        magnitude_O = layer.lora_magnitude_vector[adapters.ADAPTER].weight.detach().flatten()
        scale_O = magnitude_O / moved_OI.norm(dim=1)
        delta_OI = scale_O[:, None] * moved_OI - weight_OI.float()
        yield f"{name}.weight", delta_OI.T if transposed else delta_OI
