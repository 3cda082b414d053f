"""PiSSA: LoRA that starts from the principal part of W and freezes the rest, W = W_res + s B A.

Meng et al., 2024, arXiv 2404.02948. W_res and the start are kept, so that the adapter turns off exactly
and converts to plain LoRA of rank 2 R for the untouched weights.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab import adapters
from graftlab.adapters import low_rank
from graftlab.contracts import Attached, Backbone, Excused, Promises, Setting

if TYPE_CHECKING:
    from torch import nn

PROMISES = Promises(
    quantized=Excused("it takes a part out of the frozen weights, which would be rounded anew"),
    usual_rates=(1e-6, 1e-3),  # a tenth of LoRA's (Lee et al., 2026, arXiv 2602.04998)
)


class Config(adapters.LowRank):
    """LoRA from the principal singular values and vectors."""


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
