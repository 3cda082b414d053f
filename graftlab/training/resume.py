"""What an exactly resumable state holds, made tensors and JSON, and put back.

Nothing random is in it: order, augmentation and dropout are functions of (seed, step, example).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Attached, Note
from graftlab.errors import CheckpointError
from graftlab.rundir import files
from graftlab.rundir.lines import Lines, Mark, NoLines
from graftlab.training import checkpoint
from graftlab.training.checkpoint import Checkpoint, pack, unpack
from graftlab.training.config import Config
from graftlab.training.parallel.sharding import Sharding, Whole, nbytes, shape
from graftlab.training.state import Position, State
from graftlab.training.state_file import Gathered, Kept, Marked
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger("graftlab")

WHOLE = Whole()  # of one process alone
MOMENTS = 3  # a checkpoint holds each trainable weight with AdamW's two moments, float32 all
AGAIN = "Put it back, or run config.yaml again in a directory of its own."


def buffers(model: "nn.Module") -> "dict[str, Tensor]":
    """Return the buffers that belong to the model's state (batch statistics, masks), by name."""
    kept = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in kept}


def gather(state: State) -> "tuple[dict[str, dict[str, Tensor]], Gathered]":
    """Return the state as tensors by group, and as JSON; whole on the main process."""
    attached, sharding, scaler = state.attached, state.sharding, state.scaler
    model = attached.model
    optimizer_tensors: dict[str, Tensor] = {}
    hook_tensors: dict[str, Tensor] = {}
    values: Gathered = {
        "position": state.position.as_json(),
        "optimizer": pack(sharding.moments(state.optimizer), optimizer_tensors),
        "hooks": pack([hook.state_dict() for hook in attached.hooks], hook_tensors),
        "plateau": state.plateau.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "attached": dict(attached.record),
    }
    tensors = {
        "trainable": sharding.tensors(model, surgery.trainable(model)),
        "buffers": buffers(model),
        "optimizer": optimizer_tensors,
        "hooks": hook_tensors,
    }
    if state.position.step == 0 and attached.computed:
        whole = model.state_dict()
        computed = {name: whole[name] for name in attached.computed}
        tensors["computed"] = sharding.tensors(model, computed)
    return tensors, values


def write(
    folder: Path,
    tensors: "Mapping[str, Mapping[str, Tensor]]",
    values: Kept,
    config: Config,
) -> int:
    """Write a checkpoint of what `gather` returned, then drop what need not be kept; return its bytes.

    Raises:
        DiskError: no room, even where the oldest one has made some.
    """
    step, best = values["position"]["step"], values["position"]["best_step"]
    pinned = {0, best} if config.select == "best" else {0}
    if every := config.keep_every:
        pinned |= {kept for kept in (*checkpoint.steps(folder), step) if kept % every == 0}
    path = checkpoint.save_with_room(folder, step, tensors, values, pinned)
    checkpoint.rotate(folder, config.keep_checkpoints, pinned)
    return sum(file.stat().st_size for file in path.iterdir())


def check_room(folder: Path, model: "nn.Module", config: Config, num_steps: int) -> None:
    """Say whether the disk has room for the checkpoints to come. `Raises:` DiskError: not for one."""
    size = MOMENTS * sum(map(nbytes, surgery.trainable(model).values()))
    every = config.keep_every
    stay = config.keep_checkpoints + (num_steps // every if every else 0)
    checkpoint.check_room(folder, size, stay)


def restore(state: State, saved: Checkpoint, folder: Path) -> None:
    """Put back what `gather` returned: after this, the run is where it was.

    `folder` holds the checkpoints, the first among them.

    Raises:
        CheckpointError: it belongs to another run, or the first one is gone.
    """
    restore_model(state.attached, saved, folder, state.sharding)
    if "optimizer" in saved.tensors:
        moments = unpack(saved.state["optimizer"], saved.tensors["optimizer"])
        state.sharding.put_moments(state.optimizer, moments)
    state.plateau.load_state_dict(saved.state["plateau"])
    if saved.state["scaler"] and state.scaler:
        state.scaler.load_state_dict(saved.state["scaler"])
    state.position = Position.from_json(saved.state["position"])


def restore_model(
    attached: Attached, saved: Checkpoint, folder: Path, sharding: Sharding = WHOLE
) -> None:
    """Give the model the weights, and its hooks the state, that `gather` returned.

    `folder` holds the checkpoints, the first among them.

    Raises:
        CheckpointError: it belongs to another run, or the first one is gone.
    """
    computed = _computed(folder) if attached.computed else {}
    where = f"the checkpoint of step {saved.step}"
    _restore_hooks(attached, saved)  # may change which parameters train, so it comes first
    missing = set(surgery.trainable(attached.model)) - set(saved.tensors["trainable"])
    if missing:
        raise CheckpointError(f"{where} lacks {', '.join(sorted(missing)[:3])}: another method's.")
    # buffers may be missing only where `allow_inexact` let it through
    for group in (computed, saved.tensors["trainable"], saved.tensors.get("buffers", {})):
        _put_back(attached.model, sharding, group, where)


def marks(
    metrics: Lines | NoLines, timing: Lines | NoLines, tables: Mapping[str, Lines | NoLines]
) -> Marked:
    """Bring all lines to the disk and return where their files stand."""
    lines, clock = metrics.durable(), timing.durable()
    return {
        "metrics_bytes": lines.length,
        "metrics_sha256": lines.sha256,
        "timing_bytes": clock.length,
        "timing_sha256": clock.sha256,
        "tables": {name: table.durable() for name, table in tables.items()},
    }


def cut(lines: Lines | NoLines, name: str, saved: Checkpoint) -> list[Note]:
    """Have `<name>.jsonl` stand as it did when the checkpoint was written; return whether it has changed.

    What can be read of it stays then, and all that was there is kept beside it.
    """
    mark = Mark.of(name, saved.state)
    if mark is None or lines.cut(mark):
        return []
    kept, aside = lines.salvage(mark, saved.step)
    note = Note.of("lines_changed", file=f"{name}.jsonl", kept=kept, aside=aside.name)
    log.warning("%s", note)
    return [note]


def restore_best(state: State, folder: Path) -> None:
    """Give the model the weights, and the hooks the state, of the best checkpoint: training is over."""
    best = read(folder, state.position.best_step)
    where = f"the best checkpoint, step {best.step}"
    _restore_hooks(state.attached, best)
    for group in ("trainable", "buffers"):
        _put_back(state.attached.model, state.sharding, best.tensors[group], where)


def read(folder: Path, step: int) -> Checkpoint:
    """Return what a model needs of the checkpoint of that step: all but the optimizer's state.

    Raises:
        CheckpointError: something in it is damaged.
    """
    path = folder / checkpoint.name(step)
    damage = checkpoint.damage(path)
    damage.pop("optimizer.safetensors", None)
    if damage:
        raise CheckpointError(
            f"a checkpoint in {path.parent} cannot be used: "
            f"{checkpoint.damaged(path, damage)}. {AGAIN}"
        )
    return checkpoint.load(path, ["optimizer.safetensors"])


def _put_back(
    model: "nn.Module", sharding: Sharding, tensors: "Mapping[str, Tensor]", what: str
) -> None:
    """Copy tensors into the model's parameters and buffers of the same names.

    Raises:
        CheckpointError: a name or shape is not the model's: it belongs to another run.
    """
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in tensors.items():
        if name not in own or shape(own[name]) != tensor.shape:
            found = f"has shape {tuple(shape(own[name]))}" if name in own else "is not there"
            raise CheckpointError(
                f"{what}: {name} with shape {tuple(tensor.shape)} does not fit; in this run's model "
                f"it {found}. The checkpoint is of another backbone or method."
            )
        sharding.put(own[name], tensor)


def _computed(checkpoints: Path) -> "Mapping[str, Tensor]":
    """Return the frozen tensors that the method computed when the run began."""
    path = checkpoints / checkpoint.name(0) / "computed.safetensors"
    if not path.parent.is_dir():
        raise CheckpointError(f"{path.parent} is gone; it holds what the run began from. {AGAIN}")
    damage = checkpoint.damage(path.parent)
    if wrong := {name: damage[name] for name in (checkpoint.MANIFEST, path.name) if name in damage}:
        raise CheckpointError(
            f"{path.parent.parent} cannot be used, and the run began from it: "
            f"{checkpoint.damaged(path.parent, wrong)}. {AGAIN}"
        )
    return files.load_tensors(path)


def _restore_hooks(attached: Attached, saved: Checkpoint) -> None:
    """Give hooks their state. There may be states of more: those of a run file, which come last."""
    if attached.hooks and "hooks" not in saved.tensors:
        raise CheckpointError(
            f"the checkpoint of step {saved.step} lacks hooks.safetensors, without which this "
            f"method cannot go on."
        )
    states = unpack(saved.state["hooks"], saved.tensors.get("hooks", {}))
    if len(states) < len(attached.hooks):
        raise CheckpointError(
            f"the checkpoint of step {saved.step} has the state of {len(states)} hooks, and the run now "
            f"has {len(attached.hooks)}: hooks cannot join a run that has begun."
        )
    for hook, own in zip(attached.hooks, states, strict=False):
        hook.load_state_dict(own)
