"""PiSSA: LoRA that starts from the principal part of W and freezes the rest, W = W_res + s B A.

Meng et al., 2024, arXiv 2404.02948. W_res and the start are kept, so that the adapter turns off exactly
and converts to plain LoRA of rank 2 R for the untouched weights.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab import adapters
from graftlab.adapters import low_rank
from graftlab.contracts import Attached, Backbone, Setting

if TYPE_CHECKING:
    from torch import nn

STARTS_UNCHANGED = True
FREEZES_BACKBONE = True
MERGEABLE = True
TURNS_OFF = True
RELOADS_EXACTLY = True
BACKBONES = ("encoder", "decoder", "vision", "tiny")
NOT_ARCHITECTURES = ()


class Config(adapters.LowRank):
    """LoRA from the principal singular values and vectors."""


def on_quantized(config: Config, bits: int) -> str | None:
    """Return why it does not fit frozen weights in 4 or 8 bits: they do not stay as they are."""
    return "it takes a part out of the frozen weights, which would be rounded anew"


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the backbone with W_res frozen and A, B from the singular value decomposition of W.

    Raises:
        ConfigError: no layer matches, or the rank is larger than one of them.
        ModelError: `start_from` holds no fitting adapter.
    """
    return low_rank.attach(backbone, config, setting, init_lora_weights="pissa")


check = adapters.check_start
save = low_rank.save
off = low_rank.off
merge = low_rank.merge
deltas = low_rank.deltas
to_lora = low_rank.to_lora


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved adapter, its W_res computed from the saved start."""
    return low_rank.load(backbone, folder)
