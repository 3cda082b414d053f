"""Where a run stands: all that changes while it trains, which is all that a resumed run needs.

Nothing random is in it: order, augmentation and dropout are functions of (seed, step, example).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Attached, Note, read_notes, written
from graftlab.training.parallel.sharding import Sharding
from graftlab.training.schedule import Plateau

if TYPE_CHECKING:
    import torch


@dataclass
class Position:
    """Where a run is, in numbers."""

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    task_sums: dict[str, list[float]] = field(default_factory=dict)
    """Of a mixture: each task's `loss_sum` and `loss_count`."""
    added_sums: dict[str, list[float]] = field(default_factory=dict)
    """Of the losses that hooks or the task add: the same, by name."""
    skipped: int = 0
    skipped_in_row: int = 0
    best_step: int = 0
    best_value: float | None = None
    waited: int = 0
    ended: bool = False
    """Early stopping has ended the run."""
    seconds: float = 0.0
    """Of its steps so far, where there is a limit of time."""
    out_of_time: bool = False
    """There is a limit of time, and its steps have had it."""
    evaluation_pending: bool = False
    """A signal came in the evaluation of this step: it is done first after a resume."""
    micro_batch_size: int = 0
    not_exact: list[Note] = field(default_factory=list)
    """Why the run may differ from an uninterrupted one, if it may."""

    def as_json(self) -> dict[str, object]:
        """Return what a checkpoint keeps of it."""
        return asdict(self) | {"not_exact": written(self.not_exact)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Position":
        """Return what `as_json` was made of."""
        return cls(**{**values, "not_exact": read_notes(values.get("not_exact", ()))})


@dataclass
class State:
    """A run's position, with all else that its steps change."""

    attached: Attached
    """The model, and the method's hooks with theirs."""
    optimizer: "torch.optim.Optimizer"
    plateau: Plateau
    scaler: "torch.amp.GradScaler | None"
    """Of losses in float16; None for other precisions."""
    sharding: Sharding
    """How weights and the optimizer's state are gathered from all processes and given back."""
    position: Position = field(default_factory=Position)
