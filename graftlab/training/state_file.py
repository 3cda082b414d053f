"""What a checkpoint keeps beside tensors: state.json, field by field."""

from collections.abc import Mapping
from typing import Any, TypedDict

from graftlab.rundir.lines import Mark
from graftlab.rundir.records import Json
from graftlab.training.schedule import Levelled


class Gathered(TypedDict):
    """A state but for its tensors, which have left their names there."""

    position: Mapping[str, Any]
    optimizer: Json
    hooks: Json
    plateau: Levelled
    scaler: dict[str, object] | None
    attached: Mapping[str, object]


class Marked(TypedDict):
    """Where the files of lines stood: in bytes, and the hash of these."""

    metrics_bytes: int
    metrics_sha256: str | None
    timing_bytes: int
    timing_sha256: str | None
    tables: Mapping[str, Mark]
    """Those of hooks, by name."""


class Compared(Marked):
    """What a resumed run is held against."""

    config: Mapping[str, object]
    num_steps: int
    world: int
    micro_batch_size: int
    environment: Mapping[str, object]
    """What environment.json holds, hashed."""


class Kept(Gathered, Compared):
    """What state.json has, beside its format and step."""
