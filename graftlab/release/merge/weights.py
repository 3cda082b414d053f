"""Every weight of a merged model beside what it should be: the backbone's own, and the adapter's change."""

import contextlib
from typing import TYPE_CHECKING, Any

from graftlab.adapters import ADAPTER, PREFIX
from graftlab.contracts import Method, Note
from graftlab.release.merge.records import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

ROWS = 2048  # of a weight that are compared at once, to keep float32 copies small
NOISE = 1e-5  # of a tensor's largest value: float32 sums in another order


def compare(reference: "nn.Module", loaded: "nn.Module", method: Method) -> Weights:
    """Return how many weights of a `loaded` model are off by more than they had to be rounded.

    `reference` is the adapted model on plain weights. Layers that a method without `deltas` has adapted are
    left out, and counted.
    """
    changes = dict(method.deltas(reference)) if method.deltas else {}
    own, adapted = _own(reference, method if changes else None)
    found: Weights = {"tensors": 0, "left_out": 0, "off": 0, "worst": None}
    for name, weight in loaded.state_dict().items():
        if name not in own or (name in adapted and not changes):
            found["left_out"] += 1
            continue
        found["tensors"] += 1
        off, gap = _compare(own[name], changes.get(name), weight)
        found["off"] += off
        worst = found["worst"]
        if worst is None or (off, gap) > (worst["off"], worst["difference"]):
            found["worst"] = {"name": name, "off": off, "difference": gap}
    return found


def problems(found: Weights) -> list[Note]:
    """Return what is wrong with the weights."""
    worst = found["worst"]
    if not found["off"] or worst is None:
        return []
    return [
        Note.of(
            "weights_off",
            count=found["off"],
            name=worst["name"],
            difference=worst["difference"],
        )
    ]


def _own(reference: "nn.Module", method: Method | None) -> "tuple[dict[str, Tensor], set[str]]":
    """Return the reference's weights by their plain names, without the adapter's change, and which of them
    stand in adapted layers."""
    off = contextlib.nullcontext() if method is None else method.off(reference)
    with off:  # PiSSA has the untouched weights back here
        state = reference.state_dict()
    own, adapted = {}, set()
    for name, tensor in state.items():
        if ".original_module." in name:
            continue
        plain = name.removeprefix(PREFIX).replace(f".modules_to_save.{ADAPTER}.", ".")
        if ".base_layer." in plain:
            plain = plain.replace(".base_layer.", ".")
            adapted.add(plain)
        own[plain] = tensor.detach()
    return own, adapted


def _compare(own: "Tensor", change: object, loaded: "Tensor") -> tuple[int, float]:
    """Return how many numbers differ by more than rounding, and the largest difference."""
    import torch

    if not loaded.is_floating_point():
        return int((own.to(loaded.device) != loaded).sum()), 0.0
    shape = own.shape if own.dim() else (1,)
    own_, loaded_ = own.reshape(shape), loaded.reshape(shape).to(own.device)
    noise = NOISE * float(own.abs().max()) if own.numel() else 0.0
    epsilon = torch.finfo(loaded.dtype).eps + torch.finfo(own.dtype).eps * (change is not None)
    off, gap = 0, 0.0
    for start in range(0, len(own_), ROWS):
        rows = slice(start, start + ROWS)
        delta = _rows(change, rows)
        before = own_[rows].float()
        expected = before if delta is None else before + delta.to(before.device)
        difference = (loaded_[rows].float() - expected).abs()
        size = (
            before.abs() + expected.abs() + (0 if delta is None else delta.to(before.device).abs())
        )
        off += int((~(difference <= epsilon * size + noise)).sum())
        gap = max(gap, float(difference.max())) if difference.numel() else gap
    return off, gap


def _rows(change: Any, rows: slice) -> "Tensor | None":
    """Return some rows of a change: dense, or two factors."""
    if change is None:
        return None
    made: Tensor = (
        change[0][rows].float() @ change[1].float() if isinstance(change, tuple) else change[rows]
    )
    return made.float()
