"""What is likely to go wrong in a run, or to cost more than it has to, said before it."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graftlab.planning.live_tensors import ACTIVATIONS, LOSS, TEMPORARY
from graftlab.training.order import BUCKET
from graftlab.training.schedule import warmup_steps

if TYPE_CHECKING:
    import torch

    from graftlab.planning.memory import Foreseen
    from graftlab.planning.sizes import Sizes
    from graftlab.runfile import RunFile

LOST = 2.0**-24  # the relative step below which a float32 weight does not move
LARGE = 0.01  # learning rates above which adapters mostly diverge; SGD's are larger
CLOSE = 0.9  # share of the free memory from which a run is likely to meet its end
PADDED = 0.2  # share of padding that is worth a word


class Known(NamedTuple):
    """What advice is given on."""

    file: "RunFile"
    sizes: "Sizes"
    foreseen: "Foreseen"
    device: "torch.device"
    peak: int
    parts: Mapping[str, int]
    free: int | None
    steps: int | None


def warnings(known: Known) -> list[str]:
    """Return one sentence or two for each."""
    return [
        *_memory(known),
        *_device(known),
        *_numbers(known),
        *_lengths(known),
        *_schedule(known),
    ]


def _memory(known: Known) -> Iterator[str]:
    if known.free is None or known.peak <= CLOSE * known.free:
        return
    what = "more than" if known.peak > known.free else "nearly all of"
    largest = ", ".join(
        f"{name} ({size / 2**20:.0f} MiB)" for name, size in known.foreseen.measured.largest
    )
    yield (
        f"the peak of {known.peak / 2**30:.2f} GiB is {what} the {known.free / 2**30:.2f} GiB that are "
        f"free on {known.device}. Largest tensors: {largest}. Options: {'; '.join(_ways_out(known))}."
    )


def _ways_out(known: Known) -> list[str]:
    training, task = known.file.training, known.file.task.config
    activations = sum(known.parts[part] for part in (ACTIVATIONS, LOSS, TEMPORARY))
    ways = []
    micro = training.micro_batch_size or training.batch_size
    if micro > 1:
        ways.append(f"training.micro_batch_size: {micro // 2} (the same batch, in more pieces)")
    if not training.gradient_checkpointing:
        ways.append(
            f"training.gradient_checkpointing: true ({activations / 2**30:.2f} GiB are activations)"
        )
    if known.sizes.longest > 64 and hasattr(task, "max_length"):
        ways.append(f"task.max_length below {known.sizes.longest}")
    if getattr(known.file.backbone.config, "dtype", None) == "float32":
        ways.append("backbone.dtype: bfloat16")
    if getattr(known.file.backbone.config, "quantization", 0) is None:
        ways.append("backbone.quantization: {bits: 4}")
    return [*ways, "a smaller backbone"]


def _device(known: Known) -> Iterator[str]:
    training = known.file.training
    if known.device.type == "cpu":
        yield "no GPU is found: the run computes on the CPU"
        if training.precision == "bf16" and not _fast_bf16():
            yield (
                "training.precision: bf16 is slower than fp32 on this CPU, which has no instructions for it"
            )
    elif known.peak and known.free is not None and known.device.type == "cuda":
        import torch

        total = torch.cuda.mem_get_info(known.device)[1]
        if known.free < 0.8 * total:
            yield (
                f"the GPU is in use by others: {known.free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
            )
    cores = os.cpu_count() or 1
    if training.workers > cores:
        yield f"training.workers is {training.workers}, and there are {cores} cores"
    if training.compile:
        yield "training.compile: the memory of a compiled model is another one, mostly less"


def _fast_bf16() -> bool:
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True  # nothing is known against it
    return "bf16" in said


def _numbers(known: Known) -> Iterator[str]:
    training = known.file.training
    rate = training.learning_rate
    if rate < LOST:
        yield (
            f"training.learning_rate {rate:g} is lost on weights around 1: float32 does not show steps "
            f"below {LOST:.0e} of a weight. Set it above {LOST:.0e}."
        )
    elif training.precision == "bf16" and rate < 1e-6:
        yield (
            f"training.learning_rate {rate:g} with precision bf16: what a step changes is below what the "
            f"forward pass can tell apart (2**-8 of a weight) for thousands of steps. Use fp32, or a "
            f"higher rate."
        )
    if rate > LARGE and training.optimizer.name != "sgd":
        yield f"training.learning_rate {rate:g} is far above what adapters train with (1e-5 to 1e-2)"
    if training.precision == "fp16":
        yield "training.precision: fp16 loses small gradients, and steps while its scale is found"


def _lengths(known: Known) -> Iterator[str]:
    sizes, task, training = known.sizes, known.file.task.config, known.file.training
    wanted = getattr(task, "max_length", None)
    if sizes.examples is None:
        return
    if wanted and sizes.longest < wanted and getattr(task, "packing", "none") != "packed":
        yield (
            f"task.max_length is {wanted}, and the longest training example has {sizes.longest} tokens: "
            f"a lower one changes nothing, and a batch is as wide as its longest"
        )
    if sizes.truncated:
        of = f"{len(sizes.lengths)} looked at" if sizes.sampled else f"{sizes.examples}"
        yield f"{sizes.truncated} training examples (of {of}) are longer than allowed, and are cut"
    share = padding(sizes, training.batch_size, training.group_by_length) or 0.0
    packed = getattr(task, "packing", "none") != "none"
    if share > PADDED and not training.group_by_length and not packed:
        grouped = padding(sizes, training.batch_size, True) or 0.0
        yield (
            f"training.group_by_length is off: {share:.0%} of what goes through the model is padding; "
            f"with it {grouped:.0%}"
        )


def padding(sizes: "Sizes", batch_size: int, group: bool) -> float | None:
    """Return the share of padding among the tokens of an epoch; None for images."""
    import numpy as np

    from graftlab.training.order import epoch_batches

    if sizes.mean is None or not len(sizes.lengths):
        return None
    lengths = np.asarray(sizes.lengths, dtype=np.int64)
    padded = sum(
        len(batch) * int(lengths[batch].max())
        for batch in epoch_batches(lengths, batch_size, 0, group)
    )
    return 1 - int(lengths.sum()) / padded


def _schedule(known: Known) -> Iterator[str]:
    training, steps = known.file.training, known.steps
    if steps is None:
        return
    for name, what in (("evaluate_every", "evaluated"), ("save_every", "saved")):
        every = getattr(training, name)
        if isinstance(every, int) and every > steps:
            yield f"training.{name} is {every}, and the run has {steps} steps: only its end is {what}"
    if warmup_steps(training.schedule, steps) > steps / 2:
        yield f"the learning rate rises for more than half of the run's {steps} steps"
    if steps < BUCKET // 5:
        yield f"the run has {steps} steps: too few to compare methods by"
    examples = known.sizes.examples
    if examples and training.max_steps and training.max_steps * training.batch_size < examples:
        share = training.max_steps * training.batch_size / examples
        yield f"training.max_steps ends the run after {share:.0%} of an epoch"


def times(every: int | str, steps: int, steps_per_epoch: int) -> int:
    """Return how often something comes that comes every so many steps, or epochs, and at the end."""
    if every == 0:
        return 0
    period = steps_per_epoch if every == "epoch" else int(every)
    return math.ceil(steps / period)
