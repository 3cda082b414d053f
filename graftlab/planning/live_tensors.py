"""Count the bytes of live tensors while a model trains: by part, and the most at a time, by segment.

What is counted is the storages that torch's operations return, real or fake, each until it is freed. What
a kernel takes and gives back inside, what an allocator rounds up or keeps, and a device's own context
are not. Torch's own `MemTracker` (torch.distributed._tools) counts alike; a test compares the totals.
"""

import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

WEIGHTS, TRAINED, GRADIENTS, OPTIMIZER, METHOD, INPUTS, ACTIVATIONS, LOSS, TEMPORARY = PARTS = (
    "frozen weights",
    "trained weights",
    "gradients",
    "optimizer state",
    "method state",
    "inputs",
    "activations",
    "logits and loss",
    "temporary",
)


class Peak(NamedTuple):
    """The most bytes at a time within a segment."""

    total: int
    parts: Mapping[str, int]
    """What they were: one entry for each of `PARTS`."""


Peaks = Mapping[Hashable, Peak]
"""By segment."""


@dataclass
class _Held:
    """A storage that is alive."""

    part: str
    size: int
    reference: "weakref.ref[torch.UntypedStorage]"


class Live(TorchDispatchMode):
    """Counts every storage that an operation returns while the mode is on, and those it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.making = TEMPORARY
        """The part that what is made from here on belongs to."""
        self.peaks: dict[Hashable, Peak] = {}
        """By segment: the most bytes at a time since `forget`."""
        self._bytes = dict.fromkeys(PARTS, 0)
        self._total = 0
        self._held: dict[int, _Held] = {}
        self._segment: Hashable = None

    def segment(self, name: Hashable) -> None:
        """Count peaks under another name from here on."""
        self._segment = name
        self._note()

    def forget(self) -> None:
        """Drop the peaks so far."""
        self.peaks.clear()
        self._note()

    @property
    def peak(self) -> Peak:
        """The most bytes at a time, in any segment."""
        return max(self.peaks.values(), key=lambda peak: peak.total)

    def bytes(self, part: str) -> int:
        """Return what is alive of a part."""
        return self._bytes[part]

    def hold(self, tensors: Iterable[torch.Tensor], part: str) -> None:
        """Count tensors as a part, whether they have been counted as another one or not at all."""
        for tensor in tensors:
            self._count(tensor, part, move=True)

    def __torch_dispatch__(
        self,
        function: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        made = function(*args, **(kwargs or {}))
        self.count_made(made)
        return made

    def count_made(self, made: object) -> None:
        """Count what an operation has returned."""
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor, self.making)

    def _count(self, tensor: torch.Tensor, part: str, move: bool = False) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if held := self._held.get(key):
            if move and held.part != part:
                self._bytes[held.part] -= held.size
                self._bytes[part] += held.size
                held.part = part
            return
        size = storage.nbytes()
        self._held[key] = _Held(part, size, weakref.ref(storage, lambda _: self._free(key)))
        self._bytes[part] += size
        self._total += size
        self._note()

    def _free(self, key: int) -> None:
        held = self._held.pop(key)
        self._bytes[held.part] -= held.size
        self._total -= held.size

    def _note(self) -> None:
        known = self.peaks.get(self._segment)
        if known is None or self._total > known.total:
            self.peaks[self._segment] = Peak(self._total, dict(self._bytes))
