"""How a launcher asks weights to be shared: whole in each process, by FSDP, or by DeepSpeed's ZeRO.

It asks by variables of the environment. They are read once and taken out of it: accelerate and transformers
would each act on them on their own.
"""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

WHOLE, FSDP, ZERO = "whole", "fsdp", "zero"
SWITCHES = {"ACCELERATE_USE_FSDP": FSDP, "ACCELERATE_USE_DEEPSPEED": ZERO}
SETTINGS = ("FSDP_", "ACCELERATE_DEEPSPEED_")  # prefixes of the variables that say how


@dataclass(frozen=True)
class Asked:
    """What a launcher asks for."""

    kind: str = WHOLE
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment that say how."""

    def on(self, name: str, default: bool = False) -> bool:
        return said_yes(self.settings.get(name, str(default)))


def said_yes(value: str) -> bool:
    """Return whether accelerate takes the value of a variable for yes."""
    return value.lower() in ("1", "true", "yes", "y", "on", "t")


@functools.cache
def asked() -> Asked:
    """Return what this process's launcher asks for, the same at every call."""
    kinds = [kind for name, kind in SWITCHES.items() if said_yes(os.environ.pop(name, ""))]
    if not kinds:
        return Asked()
    found = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
    for name in found:
        del os.environ[name]
    return Asked(kinds[0], found)
