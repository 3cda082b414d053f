"""The memory of a run before it: its steps on fake tensors, of a shallower model where blocks repeat."""

import dataclasses
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from graftlab.contracts import Attached, Backbone, Task
from graftlab.planning import blocks, fakes
from graftlab.planning.live_tensors import Peak
from graftlab.planning.rehearsal import Longest, Measured, build_loop, rehearse, training_config
from graftlab.runs import attachment, chosen_layer
from graftlab.training import allocation
from graftlab.training.parallel.processes import Processes
from graftlab.weights import quantized

if TYPE_CHECKING:
    from accelerate import Accelerator

    from graftlab.runfile import RunFile


class Foreseen(NamedTuple):
    """What a run will take."""

    measured: Measured
    trainable: int
    total: int
    block: int
    """Bytes of the weights of one block, as long as they are whole."""
    depths: tuple[int, ...]
    """Blocks of the models that were gone through; one number where it was the model itself."""


@allocation.uncollected()
def foresee(
    file: "RunFile", backbone: Backbone, task: Task, accelerator: "Accelerator", processes: int = 1
) -> Foreseen:
    """Return what a step takes, from a backbone on the meta device."""
    stage = _Stage(planned(file), task, accelerator, processes)
    stack = blocks.find(backbone.model)
    depths = None
    if stack is not None:
        name, layers = stack
        length = blocks.period(layers, getattr(backbone.model.config, "layer_types", None))
        depths = blocks.depths(len(layers), length)
    shallow = [
        dataclasses.replace(backbone, model=blocks.shortened(backbone.model, name, depth))
        for depth in depths or ()
    ]
    whole = stage.attach(backbone)
    counts = _count(whole.model)
    block = _block(whole.model)
    if depths is None:
        return Foreseen(
            stage.measure(whole, backbone), *counts, block, (len(stack[1]),) if stack else (1,)
        )
    found = [stage.attach(part) for part in shallow]
    low, high = (_count(attached.model) for attached in found)
    times = (len(layers) - depths[1]) / (depths[1] - depths[0])
    grown = tuple(round(b + times * (b - a)) for a, b in zip(low, high, strict=True))
    if grown != counts:  # the method treats some of the blocks otherwise
        return Foreseen(stage.measure(whole, backbone), *counts, block, (len(layers),))
    first = stage.measure(found[0], shallow[0])
    second = stage.measure(found[1], shallow[1], evaluates=False)
    return Foreseen(
        _deeper(first, second, depths, length, times)._replace(largest=_largest(whole.model)),
        *counts,
        block,
        depths,
    )


def planned(file: "RunFile") -> "RunFile":
    """Return the run file with a method that needs no values: neither of data nor of a chosen layer."""
    if chosen_layer.wanted(file):
        file = chosen_layer.with_layer(
            file, 0
        )  # all layers of the large model have the same shapes
    config = file.method.module.planned(file.method.config)
    method = dataclasses.replace(file.method, config=config)
    return dataclasses.replace(file, method=method)


class _Stage(NamedTuple):
    file: "RunFile"
    task: Task
    accelerator: "Accelerator"
    processes: int

    def attach(self, backbone: Backbone) -> Attached:
        with fakes.on_meta():
            return attachment.attach(self.file, backbone, self.task, None, Processes())

    def measure(self, attached: Attached, backbone: Backbone, evaluates: bool = True) -> Measured:
        fake, live = fakes.mode(), fakes.Rehearsal()
        training = training_config(self.file.training, self.processes)
        task = Longest(self.task, training.batch_size, live)
        fakes.imitate(attached.model, self.accelerator.device, fake)
        loop = build_loop(self.file, training, attached, task, backbone.head, self.accelerator)
        with fake:
            return rehearse(loop, live, evaluates)


def _deeper(
    shallow: Measured, deeper: Measured, depths: tuple[int, int], length: int, times: float
) -> Measured:
    """Return what the whole model takes, from two that have its first blocks only."""
    low, high = (
        blocks.anchored(found.peaks, depth, length)
        for found, depth in zip((shallow, deeper), depths, strict=True)
    )
    peaks = blocks.extrapolated(low, high, times)
    held = peaks["start"].parts
    # without gradients nothing is kept from block to block: what is not held is the same at any depth
    parts = {name: held[name] or size for name, size in shallow.evaluation.parts.items()}
    more = round(times * (deeper.checkpoint - shallow.checkpoint))
    evaluation = Peak(sum(parts.values()), parts)
    return Measured(peaks, evaluation, deeper.checkpoint + more, ())


def _count(model: nn.Module) -> tuple[int, int]:
    """Return how many numbers train, and how many there are."""
    sizes = [(quantized.numel(p), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _block(model: nn.Module) -> int:
    stack = blocks.find(model)
    if stack is None:
        return sum(p.nbytes for p in model.parameters())
    return max(sum(p.nbytes for p in block.parameters()) for block in stack[1])


def _largest(model: nn.Module) -> tuple[tuple[str, int], ...]:
    largest = sorted(model.named_parameters(), key=lambda item: -item[1].nbytes)[:3]
    return tuple((name, parameter.nbytes) for name, parameter in largest)


def available(device: torch.device) -> int | None:
    """Return the bytes that are free where the run will compute; None where that cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [value for value in (_free_of_machine(), _free_of_group()) if value is not None]
    return min(found, default=None)


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _free_of_group() -> int | None:
    """Return what a container's limit leaves, where there is one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        held = int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is none, or it says `max`
        return None
    return max(0, limit - held)


def resident() -> int:
    """Return the bytes that this process holds in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()
