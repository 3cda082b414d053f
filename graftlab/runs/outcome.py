"""What a run has come to, as its result.json says it."""

from typing import TYPE_CHECKING, Any

from graftlab.rundir.run import read_lines
from graftlab.weights import quantized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from graftlab.runfile import RunFile
    from graftlab.training.loop import Loop


def result(file: "RunFile", loop: "Loop", not_deterministic: "Sequence[str]") -> dict[str, Any]:
    """Return all that is known of a run whose training is over, but for its scores."""
    position = loop.position
    trainable, total = count(loop.model)
    timing = read_lines(loop.parts.run.timing)
    last = file.training.select == "last" or not position.best_step
    not_exact = position.not_exact + _cut(loop)
    return {
        "name": file.name,
        "task": file.resolved["task"].get("name") or file.task.name,
        "method": file.method.name,
        "backbone": file.resolved["backbone"].get("model") or file.backbone.name,
        "seed": file.seed,
        "processes": loop.parts.processes.share.world,
        "steps": position.step,
        "ended_early": position.ended,
        "selected_step": position.step if last else position.best_step,
        "selected_by": None if last else loop.parts.best_by,
        "parameters": {"trainable": trainable, "total": total},
        "skipped_steps": position.skipped,
        "facts": {k: v for h in loop.parts.attached.hooks for k, v in h.facts().items()},
        "exact": not not_exact,
        "not_exact": not_exact,
        "not_deterministic": list(not_deterministic),
        "seconds": {"training": sum(row["seconds"] for row in timing if "event" not in row)},
    }


def _cut(loop: "Loop") -> list[str]:
    """Return a reason if memory ran out and the micro-batch was made smaller."""
    asked, made = loop.asked_micro_batch_size, loop.position.micro_batch_size
    if made >= asked:
        return []
    return [f"out of memory: micro-batch {made} instead of {asked}"]


def count(model: "nn.Module") -> tuple[int, int]:
    """Return how many numbers train, and how many there are."""
    # DeepSpeed leaves a weight that it has shared out no numbers, but says how many there are
    sizes = [
        (getattr(p, "ds_numel", quantized.numel(p)), p.requires_grad) for p in model.parameters()
    ]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)
