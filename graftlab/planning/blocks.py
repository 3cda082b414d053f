"""Where in a model a step is, and how much more of the same layers would take.

A deep model is a stack of like blocks. What is alive at the peak of a given block's forward or backward
pass is linear in the number of blocks: each adds its saved activations, weights, gradients and optimizer
state. So two shallow models tell what the deep one takes, block by block; the largest is its peak.
"""

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from graftlab.planning import live_tensors
from graftlab.planning.live_tensors import Live, Peak, Peaks
from graftlab.weights import surgery

if TYPE_CHECKING:
    from graftlab.training.loop import Loop


def begin_backward(live: Live) -> None:
    """Count from here on as the backward pass, beginning with what comes after the blocks."""
    live.making = live_tensors.TEMPORARY
    live.segment(("backward", "head"))


@contextlib.contextmanager
def watched(live: Live, loop: "Loop") -> Iterator[None]:
    """Have `live` know, inside, in which segment a step is and what is made for which part."""
    model = loop.stepper.model
    stack = find(model)
    handles: list[RemovableHandle] = [
        model.register_forward_pre_hook(lambda *_: _begin_forward(live)),
        model.register_forward_hook(lambda _, __, output: _end_forward(live, output)),
        loop.optimizer.register_step_pre_hook(lambda *_: live.segment("update")),
    ]
    for number, block in enumerate(stack[1] if stack else ()):
        handles += _watch(live, block, number, last=number + 1 == len(stack[1]))  # type: ignore[index]
    for parameter in surgery.trainable(model).values():
        handles.append(
            parameter.register_post_accumulate_grad_hook(
                lambda p: live.hold([p.grad], live_tensors.GRADIENTS)
            )
        )
    live.segment("start")
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _begin_forward(live: Live) -> None:
    live.making = live_tensors.ACTIVATIONS
    live.segment(("forward", "embedding"))


def _end_forward(live: Live, output: object) -> None:
    live.making = live_tensors.LOSS
    logits = getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor):
        live.hold([logits], live_tensors.LOSS)
    live.segment(("forward", "loss"))


def _watch(live: Live, block: nn.Module, number: int, last: bool) -> list[RemovableHandle]:
    def forward() -> bool:  # and not a block that is computed again in the backward pass
        return live.making == live_tensors.ACTIVATIONS

    def enter(*_: object) -> None:
        if forward():
            live.segment(("forward", number))

    def leave(_: object, __: object, output: object) -> None:
        if not forward():
            return
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(lambda _: live.segment(("backward", number)))
        if last:
            live.segment(("forward", "head"))

    return [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]


def find(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """Return the name of the stack of blocks that holds most of a model, and the stack."""
    stacks = [
        (name, module) for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1
    ]  # fmt: skip
    if not stacks:
        return None
    return max(stacks, key=lambda item: sum(p.numel() for p in item[1].parameters()))


def period(stack: nn.ModuleList, layer_types: Sequence[str] | None = None) -> int:
    """Return after how many blocks they repeat: 1 where all are alike, their number where none are."""
    types = layer_types if layer_types and len(layer_types) == len(stack) else [None] * len(stack)
    kinds = [(_signature(block), kind) for block, kind in zip(stack, types, strict=True)]
    for length in range(1, len(stack)):
        if all(kind == kinds[number % length] for number, kind in enumerate(kinds)):
            return length
    return len(stack)


def _signature(block: nn.Module) -> tuple[object, ...]:
    parameters = block.named_parameters()
    return type(block), *((name, p.shape, p.dtype) for name, p in parameters)


def depths(number: int, length: int) -> tuple[int, int] | None:
    """Return two depths that tell what `number` blocks of that period take; None where all are to be run."""
    shallow = 3 * length + number % length
    return (shallow, shallow + length) if 2 * shallow + length < number else None


def shortened(model: nn.Module, name: str, depth: int) -> nn.Module:
    """Return a copy of a model on the meta device that has the first `depth` blocks only."""
    import copy

    parent, attribute = surgery.parent_and_name(model, name)
    whole = getattr(parent, attribute)
    setattr(parent, attribute, nn.ModuleList(list(whole)[:depth]))
    try:
        return copy.deepcopy(model)
    finally:
        setattr(parent, attribute, whole)


def anchored(peaks: Peaks, depth: int, length: int) -> dict[Hashable, Peak]:
    """Return peaks whose blocks are named by where they stand, so that other depths have the same names."""
    found: dict[Hashable, Peak] = {}
    for segment, peak in peaks.items():
        if not isinstance(segment, tuple) or not isinstance(segment[1], int):
            found[segment] = peak
            continue
        way, number = segment
        if number < 2 * length:
            found[way, "from the first", number] = peak
        if depth - number <= 2 * length:
            found[way, "from the last", depth - number] = peak
    return found


def extrapolated(shallow: Peaks, deeper: Peaks, times: float) -> dict[Hashable, Peak]:
    """Return the peaks of a model that is deeper than `deeper` by `times` the difference of the two."""
    assert shallow.keys() == deeper.keys(), sorted(map(str, shallow.keys() ^ deeper.keys()))
    found = {}
    for segment, high in deeper.items():
        low = shallow[segment].parts
        parts = {
            name: round(size + times * (size - low[name])) for name, size in high.parts.items()
        }
        found[segment] = Peak(sum(parts.values()), parts)
    return found
