"""LoRA: a low-rank correction on linear layers, y = W x + b + s B A x, with s = alpha / rank.

Hu et al., 2021, arXiv 2106.09685, equation 3.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from graftlab import adapters
from graftlab.contracts import Attached, Backbone, Setting

if TYPE_CHECKING:
    from typing import Any

    from torch import nn

STARTS_UNCHANGED = True
FREEZES_BACKBONE = True
MERGEABLE = True
TURNS_OFF = True
RELOADS_EXACTLY = True
BACKBONES = ("encoder", "decoder", "vision", "tiny")
NOT_ARCHITECTURES = ()

INITS = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}
OWN = {
    "r": "method.rank",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
    "target_modules": "method.targets",
    "use_rslora": "method.rslora",
    "init_lora_weights": "method.init",
    "use_dora": "method.name (dora)",
}


class Config(adapters.LinearAdapter):
    """Low-rank adaptation."""

    rank: int = Field(8, ge=1)
    """Rank of the correction (r in the paper)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski, 2023, arXiv 2312.03732)."""
    init: Literal["default", "gaussian", "orthogonal"] = "default"
    """Where A and B start."""
    lora_plus_ratio: float = Field(1.0, gt=0)
    """B's learning rate is this many times A's (LoRA+, arXiv 2402.12354, takes 16)."""

    @field_validator("peft")
    @classmethod
    def _known_to_peft(cls, fields: "dict[str, Any]") -> "dict[str, Any]":
        return adapters.check_fields("lora", fields, OWN)


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with A and B on its target layers.

    Raises:
        ConfigError: no layer matches, or the rank is larger than one of them.
    """
    from peft import LoraConfig

    fields = {
        "r": config.rank,
        "lora_alpha": adapters.whole(config.alpha),
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "init_lora_weights": INITS[config.init],
        "target_modules": adapters.resolve(backbone, config.targets, config.rank),
        **adapters.common_fields(backbone),
    }
    peft_config = adapters.make_config(LoraConfig, fields, config.peft)
    model = adapters.attach(backbone, peft_config, setting.seed)
    return Attached(model, rates=rates(model, config), computed=adapters.random_frozen(model))


def rates(model: "nn.Module", config: Config) -> dict[str, float]:
    """Return LoRA+'s learning-rate multiplier for every B."""
    if config.lora_plus_ratio == 1:
        return {}
    return {n: config.lora_plus_ratio for n, _ in model.named_parameters() if ".lora_B." in n}


save = adapters.save
off = adapters.off
merge = adapters.merge


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved adapter."""
    return adapters.load(backbone, folder)
