"""What an exactly resumable state holds, taken out of the loop and put back into it.

Nothing random is in it: order, augmentation and dropout are functions of (seed, step, example).
"""

import functools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Note, Training
from graftlab.errors import CheckpointError, DiskError
from graftlab.rundir import files
from graftlab.training import checkpoint
from graftlab.training.checkpoint import Checkpoint, pack, unpack
from graftlab.training.fixed_batch import probe
from graftlab.training.parallel import sharding
from graftlab.training.parts import Position
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graftlab.training.loop import Loop

log = logging.getLogger("graftlab")

AGAIN = "Put it back, or run config.yaml again in a directory of its own."


def buffers(model: "nn.Module") -> "dict[str, Tensor]":
    """Return the buffers that belong to the model's state (batch statistics, masks), by name."""
    kept = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in kept}


def gather(loop: "Loop") -> "tuple[dict[str, dict[str, Tensor]], dict[str, Any]]":
    """Return the run's state as tensors by group, and as JSON; whole on the main process."""
    model, attached = loop.model, loop.parts.attached
    way = loop.parts.processes.sharding
    optimizer_tensors: dict[str, Tensor] = {}
    hook_tensors: dict[str, Tensor] = {}
    scaler = loop.parts.accelerator.scaler
    state = {
        "optimizer": pack(way.moments(loop.optimizer), optimizer_tensors),
        "hooks": pack([hook.state_dict() for hook in attached.hooks], hook_tensors),
        "plateau": loop.plateau.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "attached": dict(attached.record),
        "num_steps": loop.num_steps,
        "world": loop.batches.share.world,
        "micro_batch_size": loop.asked_micro_batch_size,
    }
    tensors = {
        "trainable": way.tensors(model, surgery.trainable(model)),
        "buffers": buffers(model),
        "optimizer": optimizer_tensors,
        "hooks": hook_tensors,
    }
    if loop.position.step == 0 and attached.computed:
        values = model.state_dict()
        computed = {name: values[name] for name in attached.computed}
        tensors["computed"] = way.tensors(model, computed)
    return tensors, state


def save(
    loop: "Loop",
    tensors: "Mapping[str, Mapping[str, Tensor]]",
    state: dict[str, Any],
    began: float,
) -> None:
    """Write a checkpoint of what `gather` returned, then drop what need not be kept.

    Raises:
        DiskError: no room, even where the oldest one has made some.
    """
    state["config"] = dict(loop.parts.config)
    state |= {"position": loop.position.as_json(), "metrics_bytes": loop.lines.durable()}
    folder, step = loop.parts.run.checkpoints, loop.position.step
    pinned = {0} | ({loop.position.best_step} if loop.config.select == "best" else set())
    if every := loop.config.keep_every:
        pinned |= {kept for kept in (*checkpoint.steps(folder), step) if kept % every == 0}
    try:
        path = checkpoint.save(folder, step, tensors, state)
    except DiskError as error:
        if not checkpoint.make_room(folder, pinned):
            raise
        log.warning("%s The oldest checkpoint was deleted for another try.", error)
        path = checkpoint.save(folder, step, tensors, state)
    checkpoint.rotate(folder, loop.config.keep_checkpoints, pinned)
    size = sum(file.stat().st_size for file in path.iterdir())
    seconds = time.perf_counter() - began
    loop.timing.append({"event": "checkpoint", "step": step, "seconds": seconds, "bytes": size})


def start(loop: "Loop") -> None:
    """Tell the hooks that training begins."""
    training = Training(
        loop.model,
        loop.optimizer,
        loop.num_steps,
        loop.order.steps_per_epoch,
        loop.parameters_changed,
        agree=loop.parts.processes.agree,
        add=loop.parts.processes.add_tensors,
        tell=loop.tell,  # type: ignore[arg-type]  # scalars may be None there
        probe=functools.partial(probe, loop),
        micro_batches=loop.batches.count,
    )
    for hook in loop.parts.attached.hooks:
        hook.on_train_start(training)


def put_back(loop: "Loop", tensors: "Mapping[str, Tensor]", what: str) -> None:
    """Copy tensors into the model's parameters and buffers of the same names.

    Raises:
        CheckpointError: a name or shape is not the model's: it belongs to another run.
    """
    model, way = loop.model, loop.parts.processes.sharding
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in tensors.items():
        if name not in own or sharding.shape(own[name]) != tensor.shape:
            found = (
                f"has shape {tuple(sharding.shape(own[name]))}" if name in own else "is not there"
            )
            raise CheckpointError(
                f"{what}: {name} with shape {tuple(tensor.shape)} does not fit; in this run's model "
                f"it {found}. The checkpoint is of another backbone or method."
            )
        way.put(own[name], tensor)


def restore(loop: "Loop", saved: Checkpoint) -> None:
    """Put a checkpoint's state back: after this, the run is where it was."""
    computed = _computed(loop.parts.run.checkpoints) if loop.parts.attached.computed else {}
    where = f"the checkpoint of step {saved.step}"
    _restore_hooks(loop, saved)  # may change which parameters train, so it comes first
    missing = set(surgery.trainable(loop.model)) - set(saved.tensors["trainable"])
    if missing:
        raise CheckpointError(f"{where} lacks {', '.join(sorted(missing)[:3])}: another method's.")
    put_back(loop, computed, where)
    put_back(loop, saved.tensors["trainable"], where)
    # what may be missing is missing only where --allow-inexact let it through
    put_back(loop, saved.tensors.get("buffers", {}), where)
    if "optimizer" in saved.tensors:
        moments = unpack(saved.state["optimizer"], saved.tensors["optimizer"])
        loop.parts.processes.sharding.put_moments(loop.optimizer, moments)
    loop.plateau.load_state_dict(saved.state["plateau"])
    if saved.state["scaler"] and loop.parts.accelerator.scaler:
        loop.parts.accelerator.scaler.load_state_dict(saved.state["scaler"])
    loop.position = Position.from_json(saved.state["position"])
    loop.batches.micro_batch_size = _micro_batch_size(loop, saved)
    if not loop.lines.cut(saved.state["metrics_bytes"]):
        loop.position.not_exact.append(Note.of("lines_lost"))
    loop.saved_step = saved.step


def _computed(checkpoints: Path) -> "Mapping[str, Tensor]":
    """Return the frozen tensors that the method computed when the run began."""
    path = checkpoints / checkpoint.name(0) / "computed.safetensors"
    if not path.parent.is_dir():
        raise CheckpointError(f"{path.parent} is gone; it holds what the run began from. {AGAIN}")
    damage = checkpoint.damage(path.parent)
    if wrong := {name: damage[name] for name in ("manifest.json", path.name) if name in damage}:
        raise CheckpointError(
            f"{path.parent.parent} cannot be used, and the run began from it: "
            f"{checkpoint.damaged(path.parent, wrong)}. {AGAIN}"
        )
    return files.load_tensors(path)


def _micro_batch_size(loop: "Loop", saved: Checkpoint) -> int:
    """Return the run file's micro-batch, or what it was cut to when memory ran out, if that is less."""
    asked, was = loop.batches.micro_batch_size, loop.position.micro_batch_size
    before = saved.state["micro_batch_size"]
    return min(asked, was) if 0 < was < before else asked


def put_back_best(loop: "Loop", step: int) -> None:
    """Give the model the weights, and the hooks the state, of the best checkpoint: training is over."""
    path = loop.parts.run.checkpoints / checkpoint.name(step)
    damage = checkpoint.damage(path)
    damage.pop("optimizer.safetensors", None)  # training is over
    if damage:
        raise CheckpointError(
            f"the best checkpoint in {path.parent} cannot be used: "
            f"{checkpoint.damaged(path, damage)}. {AGAIN}"
        )
    best = checkpoint.load(path, ["optimizer.safetensors"])
    _restore_hooks(loop, best)
    put_back(loop, best.tensors["trainable"], f"the best checkpoint, step {best.step}")
    put_back(loop, best.tensors["buffers"], f"the best checkpoint, step {best.step}")


def _restore_hooks(loop: "Loop", saved: Checkpoint) -> None:
    hooks = loop.parts.attached.hooks
    if hooks and "hooks" not in saved.tensors:
        raise CheckpointError(
            f"the checkpoint of step {saved.step} lacks hooks.safetensors, without which this "
            f"method cannot go on."
        )
    states = unpack(saved.state["hooks"], saved.tensors.get("hooks", {}))
    for hook, state in zip(hooks, states, strict=True):
        hook.load_state_dict(state)
