"""The loss of a fixed batch, asked by a method that changes the model while it trains."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftlab.training.loop import Loop


def probe(loop: "Loop") -> float:
    """Return the mean loss of the first step's examples, as many as go through at once.

    Without augmentation, dropout or label smoothing. Model and randomness stay as they are.
    """
    import torch

    task, model, accelerator = loop.parts.task, loop.model, loop.parts.accelerator
    indices = loop.order.batch(1)[: loop.asked_micro_batch_size]
    batch = task.batch("train", indices, None)
    on_device = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), accelerator.autocast():
            return float(task.loss(model, on_device)) / task.count(batch)
    finally:
        loop.parts.processes.sharding.settle(model)
        model.train(training)
