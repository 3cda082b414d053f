"""The loss of a fixed batch, asked by a method that changes the model while it trains."""

from typing import TYPE_CHECKING

from graftlab.contracts import Batch, Task

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn


def loss(task: Task, model: "nn.Module", batch: Batch, accelerator: "Accelerator") -> float:
    """Return the mean loss of a batch, without dropout or label smoothing.

    Model and randomness stay as they are.
    """
    import torch

    on_device = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), accelerator.autocast():
            return float(task.loss(model, on_device)) / task.count(batch)
    finally:
        model.train(training)
