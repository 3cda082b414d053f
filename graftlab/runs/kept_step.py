"""A run's model as it was at a step whose checkpoint is kept."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Attached, Backbone, Batch, Problem, Setting, Training
from graftlab.errors import ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile
from graftlab.runs import chosen_layer, identity
from graftlab.seeds import mix
from graftlab.selection import results
from graftlab.training import checkpoint, resume
from graftlab.weights import packages, surgery

if TYPE_CHECKING:
    from torch import nn


def find(path: Path, step: int) -> Run:
    """Return the run at `path`, finished or not, which has a checkpoint of that step.

    Raises:
        ConfigError: it is no run, or the checkpoint is not kept.
    """
    run = Run(path)
    if not run.started:
        raise ConfigError(f"{path} is no run directory: it has no config.yaml.", kind="no_run")
    kept = checkpoint.steps(run.checkpoints)
    if step not in kept:
        known = ", ".join(map(str, kept)) or "none"
        raise ConfigError(
            f"{path} keeps no checkpoint of step {step}. Kept: {known}. A run keeps as many as "
            f"training.keep_checkpoints says, and those that training.keep_every does."
        )
    return run


def load(run: Run, file: RunFile, problem: Problem, backbone: Backbone, step: int) -> "nn.Module":
    """Return the adapted model with the weights of that step, as the run evaluated it.

    The method is attached as on a resume: nothing is computed, and no data are read.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another backbone or method.
    """
    saved = resume.read(run.checkpoints, step)
    if not run.finished:
        identity.check_unfinished(run, file.resolved)
    if chosen_layer.wanted(file):
        run.check(f"{run.selection.name}/{results.NAME}")
        file = chosen_layer.with_layer(file, chosen_layer.chosen(run.selection))
    setting = _setting(run, file, problem, saved)
    with packages.kept_in(file.paths.cache):
        attached = file.method.module.attach(backbone, file.method.config, setting)
    _begin(attached, file, setting)
    resume.restore_model(attached, saved, run.checkpoints)
    for group in ("trainable", "buffers"):
        if name := files.not_finite(saved.tensors.get(group, {})):
            where = run.checkpoints / checkpoint.name(step)
            raise files.of_no_use(where / f"{group}.safetensors", name)
    return attached.model


def _setting(run: Run, file: RunFile, problem: Problem, saved: checkpoint.Checkpoint) -> Setting:
    examples = run.read_environment()["data"].get("sizes", {}).get("train", 1)
    return Setting(
        seed=mix(file.seed, "method"),
        num_steps=saved.state["num_steps"],
        steps_per_epoch=math.ceil(examples / file.training.batch_size),
        problem=problem,
        batches=_no_batches,
        restored=saved.state["attached"],
    )


def _no_batches() -> Iterator[Batch]:
    raise AssertionError("a method that is attached again computes nothing from data")


def _begin(attached: Attached, file: RunFile, setting: Setting) -> None:
    """Tell the method's hooks of a training that does not go on: they give the model its form."""
    import torch

    size = file.training.batch_size
    pieces = math.ceil(size / (file.training.micro_batch_size or size))
    training = Training(
        attached.model,
        torch.optim.SGD(surgery.trainable(attached.model).values(), lr=0.0),
        setting.num_steps,
        setting.steps_per_epoch,
        parameters_changed=lambda: None,
        micro_batches=lambda _: pieces,
    )
    for hook in attached.hooks:
        hook.on_train_start(training)
