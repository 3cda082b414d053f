"""LoRA on a model that is a part of another and is saved with it: its section, and PEFT's fields of it."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from graftlab.adapters.attachment import resolve
from graftlab.adapters.fields import whole
from graftlab.config import Section
from graftlab.contracts import Backbone
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import nn


class Lora(Section):
    """LoRA."""

    rank: int = Field(8, ge=1, le=surgery.MOST_RANK)
    """Rank of the corrections."""
    alpha: float = Field(16.0, gt=0)
    """They are scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of their inputs that is zeroed in training."""
    targets: str | tuple[str, ...] = surgery.ALL_LINEAR
    """Layers with them: last names or suffixes, a regular expression for full names, or all-linear."""


def fields(model: "nn.Module", kind: str, lora: Lora) -> dict[str, object]:
    """Return the fields of peft's `LoraConfig` for a model of a backbone's kind, as JSON.

    Raises:
        ConfigError: no layer matches, or the rank is larger than one of them.
    """
    part = Backbone(model, kind, None, (), None)
    return {
        "r": lora.rank,
        "lora_alpha": whole(lora.alpha),
        "lora_dropout": lora.dropout,
        "target_modules": resolve(part, lora.targets, lora.rank, "method.lora"),
    }


def add(model: "nn.Module", given: dict[str, Any]) -> None:
    """Put LoRA into the model's layers; all else of it is frozen."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(**given), model)
