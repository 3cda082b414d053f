"""What PEFT writes into a file for JELLY."""

from dataclasses import dataclass, field
from typing import Literal

from peft import PeftConfig, PeftModel
from peft.utils import PeftType
from torch import nn

from graftlab.methods.jelly.forms import METHODS

MODES = ("parallel", "sequential", "seq2par", "dynamic")


@dataclass
class JellyConfig(PeftConfig):
    """What PEFT writes into `adapter_config.json` for JELLY.

    When to switch is a matter of training, not of the adapter: it is in the run file, or given to
    `JellyCallback`.
    """

    r: int = field(default=8, metadata={"help": "Rank of the correction."})
    alpha: float = field(default=8, metadata={"help": "The correction is scaled by alpha / r."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout of the adapter's input."})
    use_rslora: bool = field(default=False, metadata={"help": "Scale by alpha / sqrt(r)."})
    mode: str = field(default="dynamic", metadata={"help": " | ".join(MODES)})
    switch_method: str = field(default="exact", metadata={"help": " | ".join(METHODS)})
    nonsquare: Literal["own_A", "parallel", "error"] = field(
        default="own_A", metadata={"help": "Layers whose input and output differ in width."}
    )
    init_weights: Literal["lora", "jelly", "gaussian", False] = field(
        default="lora",
        metadata={
            "help": "Start of A; `jelly` is another name of `lora`. False: B is random too, for tests."
        },
    )
    switch_step: int | None = field(
        default=None, metadata={"help": "After how many steps it switched; set by the switch."}
    )
    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["JELLY"]
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        choices = {
            "mode": MODES,
            "switch_method": METHODS,
            "nonsquare": ("own_A", "parallel", "error"),
            "init_weights": ("lora", "jelly", "gaussian", False),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is not one of {', '.join(map(str, known))}"
                )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not in [0, 1)")


def config_of(model: nn.Module, adapter: str) -> JellyConfig:
    """Return the config of an adapter of JELLY in a model of PEFT's."""
    assert isinstance(model, PeftModel)
    config: object = model.peft_config[adapter]
    assert isinstance(config, JellyConfig)
    return config
