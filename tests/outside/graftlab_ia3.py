"""(IA)3: what a linear layer puts out is scaled, feature by feature, y = l * (W x + b), with l one at first.

Liu et al., 2022, arXiv 2205.05638, section 3.3.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab import adapters
from graftlab.config import Section
from graftlab.contracts import Attached, Backbone, Setting

if TYPE_CHECKING:
    from torch import nn


class Config(Section):
    """Scaled activations."""

    targets: str | tuple[str, ...] = "all-linear"
    """Layers to scale: last names or suffixes, a regular expression for full names, or all-linear."""


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with a trainable scale on its target layers.

    Raises:
        ConfigError: no layer matches.
    """
    from peft import IA3Config

    targets = adapters.resolve(backbone, config.targets, rank=1)
    fields = adapters.common_fields(backbone)
    peft_config = IA3Config(target_modules=targets, feedforward_modules=[], **fields)
    model = adapters.attach(backbone, peft_config, setting.seed)
    return Attached(model, computed=adapters.random_frozen(model))


save = adapters.save
off = adapters.off
merge = adapters.merge


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved scales."""
    return adapters.load(backbone, folder)
