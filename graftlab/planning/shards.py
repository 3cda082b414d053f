"""What of a model one of several processes holds, as a config file of accelerate says it."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import NamedTuple

from graftlab import registry
from graftlab.config import read_yaml
from graftlab.errors import Argument, ConfigError, Place
from graftlab.planning.live_tensors import (
    GRADIENTS,
    OPTIMIZER,
    TEMPORARY,
    TRAINED,
    WEIGHTS,
    Peak,
    Peaks,
)

BUCKET = 25 * 2**20  # bytes of gradients that are summed at once (training.processes)


class Sharing(NamedTuple):
    """How many train together, and which parts each holds a share of only."""

    processes: int = 1
    kind: str = "whole"
    """`whole` (each has all), `zero-2` (a share of gradients and optimizer state), `zero-3` or `fsdp` (of
    the weights too)."""

    @property
    def shared(self) -> tuple[str, ...]:
        if self.kind == "whole":
            return ()
        weights = (WEIGHTS, TRAINED) if self.kind in ("zero-3", "fsdp") else ()
        return (*weights, GRADIENTS, OPTIMIZER)

    def peaks(self, peaks: Peaks, largest_block: int) -> dict[Hashable, Peak]:
        """Return the peaks of one process; with shared weights, one block is there whole at a time."""
        if self.processes == 1:
            return dict(peaks)
        found: dict[Hashable, Peak] = {}
        for segment, peak in peaks.items():
            parts = {
                name: -(-size // self.processes) if name in self.shared else size
                for name, size in peak.parts.items()
            }
            if WEIGHTS in self.shared:
                parts[TEMPORARY] += largest_block
            found[segment] = Peak(sum(parts.values()), parts)
        if not self.shared and "update" in found:
            parts = dict(found["update"].parts)
            parts[TEMPORARY] = min(BUCKET, parts[GRADIENTS])
            found["exchange"] = Peak(sum(parts.values()), parts)
        return found


def read(accelerate: str, processes: int | None) -> Sharing:
    """Return what a config file of accelerate, or the recipe of that name, asks for.

    Raises:
        ConfigError: there is none, or it asks for a way that runs do not know.
    """
    path = Path(accelerate)
    if not path.is_file():
        recipes = {p.stem: p for p in _folder().glob("*.yaml")}
        if path.stem not in recipes:
            known = ", ".join(sorted(recipes))
            raise ConfigError(
                f"there is no such file, and no recipe: {known}.",
                place=Place(argument=Argument("accelerate", accelerate)),
                kind="unknown",
                given=accelerate,
                allowed=sorted(recipes),
            )
        path = recipes[path.stem]
    said = read_yaml(path)
    number = processes or int(said.get("num_processes") or 1)
    way = str(said.get("distributed_type", "NO"))
    if way == "FSDP":
        return Sharing(number, "fsdp")
    if way == "DEEPSPEED":
        stage = _stage(said.get("deepspeed_config") or {})
        if stage not in (2, 3):
            raise ConfigError(f"{path}: zero_stage {stage} is not known to plan; 2 and 3 are.")
        return Sharing(number, f"zero-{stage}")
    if way == "NO" or way.startswith("MULTI_"):
        return Sharing(number)
    raise ConfigError(
        f"{path}: distributed_type {way} is not known; see docs/several-processes.md."
    )


def _stage(said: Mapping[str, object]) -> int:
    """Return DeepSpeed's stage, from the config or from the file that it names."""
    if "deepspeed_config_file" not in said:
        return int(str(said.get("zero_stage", 2)))
    path = Path(str(said["deepspeed_config_file"]))
    path = path if path.is_file() else _folder() / path.name
    if not path.is_file():
        raise ConfigError(f"deepspeed_config_file {path}: there is no such file.", kind="missing")
    return int(json.loads(path.read_text(encoding="utf-8"))["zero_optimization"]["stage"])


def _folder() -> Path:
    return Path(str(registry.__file__)).parent / "recipes" / "accelerate"
