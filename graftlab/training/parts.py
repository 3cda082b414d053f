"""What the training loop is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.contracts import Attached, Task
from graftlab.rundir.run import Run
from graftlab.training.parallel.processes import Processes
from graftlab.training.signals import Signals

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Scalars = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
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
    config: "Mapping[str, object]" = field(default_factory=dict)
    """The resolved run file, kept with each checkpoint to compare on resume."""
    environment: "Mapping[str, object]" = field(default_factory=dict)
    """What environment.json holds, hashed: kept with each checkpoint too."""
    processes: Processes = field(default_factory=Processes)
    """All that train this run together."""
