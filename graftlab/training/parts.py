"""What the training loop is given, and where it stands."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Attached, Note, Task, read_notes, written
from graftlab.rundir.run import Run
from graftlab.training.parallel.processes import Processes
from graftlab.training.signals import Signals

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Scalars = dict[str, float | None]


@dataclass(frozen=True)
class Parts:
    """All that the loop works on."""

    run: Run
    attached: Attached
    task: Task
    accelerator: "Accelerator"
    evaluate: "Callable[[nn.Module], Scalars]"
    """Returns the validation metrics, `loss` among them, the same on every process; raises `Stopped`
    on every process where a signal came."""
    higher_is_better: bool
    """Whether a larger value of `best_by` is better."""
    best_by: str
    head: tuple[str, ...]
    seed: int
    signals: Signals
    sinks: "tuple[Callable[..., None], ...]" = ()
    """Each is told the step, its scalars, and the training examples seen: progress bar, trackers."""
    config: "Mapping[str, Any]" = field(default_factory=dict)
    """The resolved run file, kept with each checkpoint to compare on resume."""
    processes: Processes = field(default_factory=Processes)
    """All that train this run together."""


@dataclass
class Position:
    """Where a run is; with the tensors, all that a resumed run needs."""

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    task_sums: dict[str, list[float]] = field(default_factory=dict)
    """Of a mixture: each task's `loss_sum` and `loss_count`."""
    skipped: int = 0
    skipped_in_row: int = 0
    best_step: int = 0
    best_value: float | None = None
    waited: int = 0
    ended: bool = False
    """Early stopping has ended the run."""
    evaluation_pending: bool = False
    """A signal came in the evaluation of this step: it is done first after a resume."""
    micro_batch_size: int = 0
    not_exact: list[Note] = field(default_factory=list)
    """Why the run may differ from an uninterrupted one, if it may."""

    def as_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return asdict(self) | {"not_exact": written(self.not_exact)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Position":
        """Return what `as_json` was made of."""
        return cls(**{**values, "not_exact": read_notes(values.get("not_exact", ()))})
