"""How a run is carried out, as against what it computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPLITS = ("validation", "test")  # that are scored at the end


@dataclass(frozen=True)
class Options:
    """How a run is carried out."""

    quiet: bool = False
    """No progress on the terminal; run.log is written all the same."""
    allow_inexact: bool = False
    """Go on without files of a checkpoint, or from its weights alone, and mark the run."""
    override: tuple[str, ...] = ()
    """Keys of config.yaml that may differ from what the checkpoint was made with."""
    splits: tuple[str, ...] = SPLITS
    """Those that are scored at the end: a search that must not see test leaves it out."""
    compared: bool = False
    """Measure what a comparison shows beside scores: the last checkpoint's, and what the adapter costs."""
    data: Mapping[str, Any] | None = None
    """The fingerprints that the rows must have, as another machine has read them; None for any."""
