"""LoRA: a low-rank correction on linear layers, y = W x + b + s B A x, with s = alpha / rank.

Hu et al., 2021, arXiv 2106.09685, equation 3.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from graftlab import adapters
from graftlab.adapters import low_rank
from graftlab.config import Conflict
from graftlab.contracts import Attached, Backbone, Setting

if TYPE_CHECKING:
    from torch import nn


class Config(adapters.LowRank):
    """Low-rank adaptation."""

    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "eva"] = "default"
    """Where A and B start: B zero and A uniform (default) or normal (gaussian), orthogonal to each other,
    the weight's principal part (pissa), its QR factors (olora), or the inputs' principal directions with
    ranks shared out among the layers (eva)."""

    @model_validator(mode="after")
    def _even_rank(self) -> "Config":
        if self.init == "orthogonal" and self.rank % 2:
            raise Conflict("rank", f"rank {self.rank} is odd; init orthogonal needs an even one")
        if self.init == "eva" and self.start_from is not None:
            raise Conflict(
                "start_from", "start_from and init eva exclude each other: both say where A starts"
            )
        return self


def on_quantized(config: Config, bits: int) -> str | None:
    """Return why it does not fit frozen weights in so many bits; None where it does."""
    if config.init in low_rank.RESIDUAL:
        return f"init {config.init} takes a part out of the frozen weights, which would be rounded anew"
    return None


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with A and B on its target layers.

    Raises:
        ConfigError: no layer matches, or the rank is larger than one of them.
        ModelError: `start_from` holds no fitting adapter.
    """
    if config.init == "eva":
        from graftlab.methods.lora.eva import attach as attach_eva

        return attach_eva(backbone, config, setting)
    init = True if config.init == "default" else config.init
    return low_rank.attach(backbone, config, setting, init_lora_weights=init)


def planned(config: Config) -> Config:
    """Return a config of the same size that needs no data: EVA shares out ranks, and their sum stays."""
    return config.model_copy(update={"init": "default"}) if config.init == "eva" else config


check = adapters.check_start
save = low_rank.save
off = low_rank.off
merge = low_rank.merge
deltas = low_rank.deltas
to_lora = low_rank.to_lora


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved adapter."""
    return low_rank.load(backbone, folder)
