"""The `training:` section of a run file: the same for every method, so that only the method differs."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from graftlab.config import Section
from graftlab.errors import ConfigError, Fault, unknown, wrong
from graftlab.training.optimizer import Config as Optimizer
from graftlab.training.optimizer import check as check_optimizer
from graftlab.training.schedule import Config as Schedule
from graftlab.training.schedule import warmup_steps


class EarlyStopping(Section):
    """When to stop before the end."""

    patience: int = Field(0, ge=0)
    """Evaluations in a row without improvement after which the run ends; 0 means never."""
    min_improvement: float = Field(0.0, ge=0)
    """What counts as an improvement of `best_by`, in its own unit."""


class Config(Section):
    """How a run trains."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the training split; fractions are allowed. Without effect where `max_steps` is set."""
    max_steps: int = Field(0, ge=0)
    """Optimizer steps; 0 means that `epochs` decides."""
    max_seconds: float = Field(0.0, ge=0)
    """Seconds of steps, over all sessions and without evaluations, after which the run ends at the next step;
    0 means never. The schedule is that of all steps, so that its end may not be reached."""
    batch_size: int = Field(32, ge=1)
    """Examples per optimizer step, over all processes and micro-batches."""
    micro_batch_size: int = Field(0, ge=0)
    """Examples that go through the model at once in one process; 0 means as many as `batch_size` gives it."""
    learning_rate: float = Field(5e-4, gt=0, le=100)
    """The peak."""
    head_learning_rate: float | None = Field(None, gt=0, le=100)
    """A peak of its own for the task's head; null means the same."""
    schedule: Schedule = Schedule()
    """How the learning rate moves."""
    optimizer: Optimizer = Optimizer()
    """What turns gradients into steps."""
    clip_norm: float = Field(1.0, ge=0)
    """Gradients with a larger norm are scaled down to it; 0 means never."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the forward pass computes in; trainable weights are float32 whatever it is."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    compile: bool = False
    """Compile the model with torch.compile."""
    evaluate_every: int | Literal["epoch"] = "epoch"
    """Steps between evaluations on the validation split, or `epoch`; 0 means never. The end is evaluated."""
    save_every: int | Literal["epoch"] = "epoch"
    """Steps between checkpoints, or `epoch`; 0 means only at the end, on a signal and for the best."""
    logging_every: int = Field(10, ge=0)
    """Steps between lines of metrics.jsonl; 0 means only evaluations."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many to keep, beside the first, the best and those of `keep_every`."""
    keep_every: int = Field(0, ge=0)
    """Steps between checkpoints that stay, for a later analysis; 0 means none does."""
    early_stopping: EarlyStopping = EarlyStopping()
    """When to stop before the end."""
    best_by: str | None = None
    """Validation metric that names the best checkpoint: one of the task's, or `loss`; null: its first."""
    select: Literal["best", "last"] = "best"
    """Which checkpoint becomes the adapter and is scored on test."""
    workers: int = Field(0, ge=0, le=256)
    """Processes that make batches ahead of time."""
    group_by_length: bool = True
    """Make batches of examples of like length, in a seeded order."""
    max_skipped: int = Field(8, ge=1)
    """Steps in a row without a finite loss and gradient after which the run stops."""


def check(config: Config) -> list[Fault]:
    """Return conflicts within the section, without importing torch."""
    problems = check_optimizer(config.optimizer)
    for name in ("evaluate_every", "save_every"):
        value = getattr(config, name)
        if isinstance(value, int) and value < 0:
            allowed = "0 (never), a number of steps or 'epoch'"
            said = f"training.{name} must be {allowed}."
            problems.append(wrong(name, said, kind="not_allowed", given=value, allowed=allowed))
    if config.micro_batch_size > config.batch_size:
        said = (
            f"training.micro_batch_size ({config.micro_batch_size}) is larger than "
            f"training.batch_size ({config.batch_size}), which it is a part of."
        )
        problems.append(wrong("micro_batch_size", said, kind="conflict"))
    warmup = config.schedule.warmup
    if config.max_steps and warmup >= 1 and warmup > config.max_steps:
        said = (
            f"training.schedule.warmup ({warmup:g} steps) is longer than "
            f"training.max_steps ({config.max_steps})."
        )
        problems.append(wrong(("schedule", "warmup"), said, kind="conflict"))
    never = config.evaluate_every == 0
    if never and config.early_stopping.patience:
        said = "training.early_stopping needs evaluations: training.evaluate_every is 0."
        problems.append(wrong("early_stopping", said, kind="conflict"))
    if never and config.schedule.name == "plateau":
        said = "the schedule 'plateau' needs evaluations: training.evaluate_every is 0."
        problems.append(wrong("schedule", said, kind="conflict"))
    return problems


def best_by(config: Config, metrics: Sequence[str]) -> str:
    """Return the metric, one of the task's, or `loss`, that names the best checkpoint.

    Raises:
        ConfigError: it is none of the task's.
    """
    known = (*metrics, "loss")
    found = config.best_by or metrics[0]
    if found not in known:
        said = f"training.best_by: {unknown('metric of this task', found, known)} Add it to task.metrics."
        key = ("training", "best_by")
        raise ConfigError(wrong(key, said, kind="unknown", given=found, allowed=list(known)))
    return found


def num_steps(config: Config, examples: int) -> int:
    """Return the optimizer steps of a run over that many training examples.

    Raises:
        ConfigError: the batch is larger than the training split, or the warm-up longer than the run.
    """
    if config.batch_size > examples:
        said = (
            f"training.batch_size is {config.batch_size}, but there are only {examples} training "
            f"examples. Set it to at most {examples}."
        )
        raise ConfigError(
            wrong(("training", "batch_size"), said, kind="conflict", allowed=examples)
        )
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(examples / config.batch_size))
    if warmup_steps(config.schedule, steps) > steps:
        said = (
            f"training.schedule.warmup ({config.schedule.warmup:g} steps) is longer than the run "
            f"({steps} steps)."
        )
        key = ("training", "schedule", "warmup")
        raise ConfigError(wrong(key, said, kind="conflict", allowed=steps))
    return steps
