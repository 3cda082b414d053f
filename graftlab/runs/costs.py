"""What a trained adapter costs: the size of its files, operations of training, time of inference."""

import functools
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.contracts import Excused, Task, parts_of
from graftlab.rundir.records import Costs
from graftlab.rundir.run import Run
from graftlab.runs import prediction
from graftlab.training.order import Order

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from graftlab.runfile import RunFile
    from graftlab.training.loop import Loop

log = logging.getLogger("graftlab")
EXAMPLES, SECONDS = 512, 2.0
"""Batches of evaluation are timed, after one that warms caches, until one of these is reached."""


def measure(loop: "Loop", file: "RunFile", run: Run, accelerator: "Accelerator") -> Costs:
    """Return the costs of a run whose scores are written.

    The model is merged in the end, where the method can, and is worth no more.
    """
    model, task = loop.model.eval(), loop.parts.task
    size = loop.batches.micro_batch_size
    indices = counted(task, loop.order, size)
    with accelerator.autocast():
        flops = step_flops(model, task, indices, accelerator) / len(indices)
        seconds = functools.partial(inference_seconds, task=task, batch_size=size)
        beside = seconds(model)
        merged = _merged(model, file)
        return {
            "adapter_bytes": sum(
                path.stat().st_size for path in run.adapter.rglob("*") if path.is_file()
            ),
            "training_flops": flops * file.training.batch_size * loop.position.step,
            "inference_seconds": beside,
            "merged_inference_seconds": None if merged is None else seconds(merged),
        }


def counted(task: Task, order: Order, size: int) -> list[int]:
    """Return the examples whose operations stand for those of all steps: of the first step as many as go
    through the model at once, of one task."""
    indices = order.batch(1)[:size]
    parts = parts_of(task, "train")
    return [i for i in indices if parts is None or parts[i] == parts[indices[0]]]


def step_flops(
    model: "nn.Module", task: Task, indices: Sequence[int], accelerator: "Accelerator"
) -> float:
    """Return the floating-point operations of one pass forward and back over train examples.

    Those of matrix products and convolutions, a multiplication and an addition each (torch's
    FlopCounterMode); recomputed activations and the optimizer are left out. No gradient stays.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    batch = task.batch("train", indices, None)
    on_device = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
    with (
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),  # fused attention of CPUs is not counted
        FlopCounterMode(display=False) as counter,
    ):
        torch.autograd.backward(task.loss(model, on_device))
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def inference_seconds(model: "nn.Module", task: Task, batch_size: int) -> float:
    """Return how long a forward pass over 1,000 examples takes, making batches included."""
    split = next(name for name in ("test", "validation", "train") if task.size(name))
    first = range(min(batch_size, task.size(split)))
    prediction.predict(model, task, split, batch_size, only=first)
    examples, began, took = 0, time.perf_counter(), 0.0
    while examples < EXAMPLES and took < SECONDS:
        start = examples % task.size(split)
        batch = range(start, min(start + batch_size, task.size(split)))
        prediction.predict(model, task, split, batch_size, only=batch)
        examples, took = examples + len(batch), time.perf_counter() - began
    return took / examples * 1000


def _merged(model: "nn.Module", file: "RunFile") -> "nn.Module | None":
    """Return the model with its adapter merged; None where that cannot be."""
    if isinstance(file.method.module.PROMISES.mergeable, Excused):
        return None
    try:
        merged: nn.Module = file.method.module.merge(model)
    except (NotImplementedError, RuntimeError, ValueError) as error:  # PEFT's own refusals
        log.info("the time of a merged model is not known: %s", error)
        return None
    return merged.eval()
