"""Memory that runs out: how it is told from other errors, and what can be done."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.errors import OutOfMemory

if TYPE_CHECKING:
    from torch import nn


def ran_out(error: RuntimeError) -> bool:
    """Return whether an error says that memory has run out."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def no_room(
    model: "nn.Module", trained: "Sequence[nn.Parameter]", message: str, where: str
) -> OutOfMemory:
    """Return the error that says what takes the memory and three ways out; `message` is the library's."""
    largest = sorted(model.named_parameters(), key=lambda item: -item[1].nbytes)[:3]
    names = ", ".join(f"{name} ({p.nbytes / 2**20:.0f} MiB)" for name, p in largest)
    weights = sum(p.nbytes for p in model.parameters()) / 2**20
    moved = sum(p.nbytes for p in trained) / 2**20
    return OutOfMemory(
        f"out of memory {where} ({message.partition(chr(10))[0]}). Weights take "
        f"{weights:.0f} MiB, gradients and optimizer about {3 * moved:.0f} MiB; largest: {names}. "
        "Options: task.max_length smaller; training.gradient_checkpointing: true; "
        "backbone.dtype: bfloat16 (or a smaller backbone)."
    )
