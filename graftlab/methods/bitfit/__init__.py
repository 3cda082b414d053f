"""BitFit: only the biases train, y = W x + (b + delta), with delta kept beside b.

Ben Zaken et al., 2022, arXiv 2106.10199. Every linear, convolution and norm layer that has a bias takes
part. The paper trains b itself; delta is the same training, and can be turned off, saved and merged.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab import adapters
from graftlab.config import Section
from graftlab.contracts import Attached, Backbone, Promises, Setting
from graftlab.errors import ConfigError
from graftlab.weights import surgery

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

PROMISES = Promises(
    quantized=True,
    usual_rates=(1e-4, 1e-2),  # Ben Zaken et al. (2022, arXiv 2106.10199) search 1e-4 to 1e-3
)
REGISTERS = f"{__name__}.tuner"

LAYERS = ("Linear", "Conv1D", "Conv1d", "Conv2d", "LayerNorm", "GroupNorm", "_BatchNorm")


class Config(Section):
    """BitFit has no settings of its own."""


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with a trainable change of every bias, zero at first.

    Raises:
        ConfigError: the backbone has no biases.
    """
    from graftlab.methods.bitfit.tuner import BitfitConfig

    names = biased_layers(backbone)
    if not names:
        raise ConfigError(
            f"method bitfit trains biases, but {type(backbone.model).__name__} has none. "
            "Choose another method, such as lora."
        )
    peft_config = BitfitConfig(target_modules=names, **adapters.common_fields(backbone))
    model = adapters.attach(backbone, peft_config, setting.seed)
    return Attached(model, computed=adapters.random_frozen(model))


def biased_layers(backbone: Backbone) -> list[str]:
    """Return the names of the layers with a bias, outside the head, sorted."""
    outside = surgery.output_layers(backbone.model, backbone.head)
    return sorted(
        name
        for name, module in backbone.model.named_modules()
        if any(cls.__name__ in LAYERS for cls in type(module).__mro__)
        and getattr(module, "bias", None) is not None
        and type(module).__name__ != "NonDynamicallyQuantizableLinear"  # used, but never called
        and not surgery.inside(name, outside)
    )


save = adapters.save
off = adapters.off
merge = adapters.merge


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved changes of its biases."""
    from graftlab.methods.bitfit import tuner  # noqa: F401  (registers the type in PEFT

    return adapters.load(backbone, folder)


def deltas(model: "PeftModel") -> "Iterator[tuple[str, Tensor]]":
    """Yield the name of each bias in the backbone and its change (O,)."""
    from graftlab.methods.bitfit.tuner import BitfitLayer

    for name, layer in model.named_modules():
        if isinstance(layer, BitfitLayer):
            delta = layer.bitfit_delta[adapters.ADAPTER].detach()
            yield f"{name.removeprefix(adapters.PREFIX)}.bias", delta
