"""A method's adapter put on the backbone of a run, alike in every process."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graftlab.contracts import OF_TASK, Attached, Backbone, Batch, Hook, Setting, Task
from graftlab.errors import ConfigError
from graftlab.seeds import mix
from graftlab.training import allocation, resume
from graftlab.training.config import num_steps
from graftlab.training.order import Order
from graftlab.training.parallel.processes import Processes
from graftlab.weights import packages, surgery

if TYPE_CHECKING:
    from graftlab.runfile import RunFile

log = logging.getLogger("graftlab")

Restored = Mapping[str, Any] | None


def attach(
    file: "RunFile", backbone: Backbone, task: Task, restored: Restored, processes: Processes
) -> Attached:
    """Put the adapter on; `restored` is its record where a run is resumed. Hooks of the run file follow the
    method's.

    What is computed or drawn at a run's start, from data or not, the main process computes and sends.

    Raises:
        ConfigError: the method does not fit the backbone, or leaves no room for the inputs.
    """
    if restored is not None:
        return _attach(file, backbone, task, restored)
    targets = getattr(file.method.config, "targets", None)
    if said := surgery.unreached(backbone.model, targets, backbone.head):
        log.warning("%s", said)
    attached = None
    with processes.together():
        if processes.main:
            attached = _attach(file, backbone, task, None)
    record = processes.broadcast(dict(attached.record) if attached else {})
    attached = attached or _attach(file, backbone, task, record)
    values = attached.model.state_dict(keep_vars=True)
    computed = {name: values[name] for name in attached.computed}
    trainable, buffers = surgery.trainable(attached.model), resume.buffers(attached.model)
    processes.send(trainable | computed | buffers)
    return attached


def _attach(file: "RunFile", backbone: Backbone, task: Task, restored: Restored) -> Attached:
    training, device = file.training, next(backbone.model.parameters()).device
    seed = mix(file.seed, "order")
    order = Order.of(task, training.batch_size, seed, training.group_by_length)

    def batches() -> Iterator[Batch]:
        for step in range(1, setting.num_steps + 1):
            for indices in order.micro_batches(step, training.batch_size):
                batch = task.batch("train", indices, order.epoch(step))
                read = {k: tensor for k, tensor in batch.items() if not k.startswith(OF_TASK)}
                yield {name: tensor.to(device) for name, tensor in read.items()}

    setting = Setting(
        mix(file.seed, "method"),
        num_steps(training, len(order.lengths)),
        order.steps_per_epoch,
        task.problem,
        batches,
        restored,
        training.gradient_checkpointing,
        task.record.get("vectors"),
    )
    if training.gradient_checkpointing:
        model: Any = backbone.model
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with packages.kept_in(file.paths.cache), allocation.uncollected():
        attached: Attached = file.method.module.attach(backbone, file.method.config, setting)
    _check_room(file.method.name, attached, task, backbone)
    return replace(attached, hooks=(*attached.hooks, *_brought(file, setting)))


def _brought(file: "RunFile", setting: Setting) -> Iterator[Hook]:
    """Yield the hooks of the run file, each with a seed of its own."""
    for part in file.hooks:
        seed = mix(file.seed, "hook", part.name)
        yield part.module.make(part.config, replace(setting, seed=seed, restored=None))


def _check_room(method: str, attached: Attached, task: Task, backbone: Backbone) -> None:
    """Refuse inputs that leave no room for the method's virtual tokens.

    Raises:
        ConfigError: an input and the virtual tokens are longer than the model takes.
    """
    if not attached.positions or backbone.max_length is None:
        return
    room = backbone.max_length - attached.positions
    splits = [split for split in ("train", "validation", "test") if task.size(split)]
    longest = max(max(task.lengths(split)) for split in splits)
    if longest > room:
        raise ConfigError(
            f"the method {method!r} takes {attached.positions} of the model's {backbone.max_length} "
            f"positions, and the longest input has {longest} tokens. Set task.max_length to at most "
            f"{room}."
        )
