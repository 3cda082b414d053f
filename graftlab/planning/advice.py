"""What is likely to go wrong in a run, or to cost more than it has to, said before it."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts import Note
from graftlab.planning.live_tensors import ACTIVATIONS, LOSS, TEMPORARY
from graftlab.runfile import checks
from graftlab.training.order import BUCKET
from graftlab.training.schedule import warmup_steps

if TYPE_CHECKING:
    import torch

    from graftlab.planning.memory import Foreseen
    from graftlab.planning.sizes import Sizes
    from graftlab.runfile import RunFile

LOST = 2.0**-24  # the relative step below which a float32 weight does not move
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


def warnings(known: Known) -> list[Note]:
    """Return a note on each."""
    return [
        *_memory(known),
        *_device(known),
        *_numbers(known),
        *_lengths(known),
        *_schedule(known),
    ]


def _memory(known: Known) -> Iterator[Note]:
    if known.free is None or known.peak <= CLOSE * known.free:
        return
    yield Note.of(
        "memory_short",
        peak=known.peak,
        free=known.free,
        device=str(known.device),
        largest=[[name, size] for name, size in known.foreseen.measured.largest],
        options=_ways_out(known),
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


def _device(known: Known) -> Iterator[Note]:
    training = known.file.training
    if known.device.type == "cpu":
        yield Note.of("no_gpu")
        yield from checks.slow_formats(known.file)
    elif known.peak and known.free is not None and known.device.type == "cuda":
        import torch

        total = torch.cuda.mem_get_info(known.device)[1]
        if known.free < 0.8 * total:
            yield Note.of("gpu_shared", free=known.free, total=total)
    cores = os.cpu_count() or 1
    if training.workers > cores:
        yield Note.of("workers_idle", workers=training.workers, cores=cores)
    if training.compile:
        yield Note.of("compiled")


def _numbers(known: Known) -> Iterator[Note]:
    training = known.file.training
    rate = training.learning_rate
    if rate < LOST:
        yield Note.of("rate_lost", rate=rate, least=LOST)
    elif training.precision == "bf16" and rate < 1e-6:
        yield Note.of("rate_unseen", rate=rate)
    yield from checks.unusual_rate(known.file)
    if training.precision == "fp16":
        yield Note.of("fp16_loses")


def _lengths(known: Known) -> Iterator[Note]:
    sizes, task, training = known.sizes, known.file.task.config, known.file.training
    wanted = getattr(task, "max_length", None)
    if sizes.examples is None:
        return
    if wanted and sizes.longest < wanted and getattr(task, "packing", "none") != "packed":
        yield Note.of("length_idle", allowed=wanted, longest=sizes.longest)
    if sizes.truncated:
        of = len(sizes.lengths) if sizes.sampled else sizes.examples
        yield Note.of("examples_cut", examples=sizes.truncated, of=of, sampled=sizes.sampled)
    share = padding(sizes, training.batch_size, training.group_by_length) or 0.0
    packed = getattr(task, "packing", "none") != "none"
    if share > PADDED and not training.group_by_length and not packed:
        grouped = padding(sizes, training.batch_size, True) or 0.0
        yield Note.of("padding", share=share, grouped=grouped)


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


def _schedule(known: Known) -> Iterator[Note]:
    training, steps = known.file.training, known.steps
    if steps is None:
        return
    for name, what in (("evaluate_every", "evaluated"), ("save_every", "saved")):
        every = getattr(training, name)
        if isinstance(every, int) and every > steps:
            yield Note.of("only_at_the_end", key=name, every=every, steps=steps, done=what)
    if warmup_steps(training.schedule, steps) > steps / 2:
        yield Note.of("long_warmup", steps=steps)
    if steps < BUCKET // 5:
        yield Note.of("few_steps", steps=steps)
    examples = known.sizes.examples
    if examples and training.max_steps and training.max_steps * training.batch_size < examples:
        share = training.max_steps * training.batch_size / examples
        yield Note.of("part_of_an_epoch", share=share)


def texts(file: "RunFile", validation: int, evaluations: int | None) -> Iterator[Note]:
    """Yield what is written while training, of each task that asks for it."""
    parts = file.task.parts or {"": file.task}
    for name, part in parts.items():
        writing = getattr(part.config, "generation", None)
        if writing is None or not writing.at_evaluations or evaluations is None:
            continue
        answers = min(writing.at_evaluations, validation) * writing.samples
        most = answers * writing.max_new_tokens
        known = {"answers": answers, "evaluations": evaluations, "tokens": most * evaluations}
        note = Note.of("texts_at_evaluations", **known)
        yield note.within(name) if name else note


def times(every: int | str, steps: int, steps_per_epoch: int) -> int:
    """Return how often something comes that comes every so many steps, or epochs, and at the end."""
    if every == 0:
        return 0
    period = steps_per_epoch if every == "epoch" else int(every)
    return math.ceil(steps / period)
