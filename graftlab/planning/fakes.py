"""Run a model without its weights: floating-point tensors have a shape and no memory, whole numbers are real.

That is torch's FakeTensorMode, but for token ids, masks and labels, which are small and decide what is
computed: whether there is padding at all, or which positions are trained. So the code of model and task
runs as it would, and takes the ways that it would take.
"""

import contextlib
from typing import TYPE_CHECKING, TypeGuard, cast

import torch
from torch import nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from graftlab.planning import quantized
from graftlab.planning.live_tensors import Live

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LARGEST = 2**24  # numbers of a tensor that is computed really: 16 MiB of a mask
SCALAR = 1.0  # what a number is taken for where the code asks for its value, and it has none
UPDATES = "bitsandbytes.optimizer_update"  # kernels that change their arguments and return nothing
INDEXING = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


class Rehearsal(Live):
    """Counts, and computes really what is whole numbers only. To be entered inside a `FakeTensorMode`."""

    def __torch_dispatch__(
        self,
        function: OpOverload,
        types: "Sequence[type]",
        args: "tuple[object, ...]" = (),
        kwargs: "Mapping[str, object] | None" = None,
    ) -> object:
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default and _fake(args[0]):
            return SCALAR if args[0].is_floating_point() else int(SCALAR)
        if str(function).startswith(UPDATES):
            return None
        if function in INDEXING:
            args = (args[0], _as_numbers(cast("Sequence[object]", args[1])), *args[2:])
        made = self._made(function, args, kwargs)
        self.count_made(made)
        return made

    def _made(
        self, function: OpOverload, args: "tuple[object, ...]", kwargs: "Mapping[str, object]"
    ) -> object:
        if _any_fake(args) or _any_fake(kwargs.values()):
            return function(*args, **kwargs)
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            return _really(function, args, kwargs)
        try:
            made = function(*args, **kwargs)  # tells how large it would be
        except DynamicOutputShapeException:
            return _really(function, args, kwargs)
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        if all(_wanted(tensor) for tensor in tensors):
            return _really(function, args, kwargs)
        return made


class WithoutValues(TorchDispatchMode):
    """Lets a method be attached to a model on the meta device although it looks at weights.

    Whole numbers that are made from nothing (token ids, positions) are real and on the CPU.
    """

    def __torch_dispatch__(
        self,
        function: OpOverload,
        types: "Sequence[type]",
        args: "tuple[object, ...]" = (),
        kwargs: "Mapping[str, object] | None" = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        if not any(map(_on_meta, tree_leaves((args, kwargs)))):
            made = function(*args, **kwargs)
            if _on_meta(made) and not made.is_floating_point():
                return function(*args, **(kwargs | {"device": torch.device("cpu")}))
            return made
        if _on_meta(args[0]):
            if function is torch.ops.aten._local_scalar_dense.default:
                return SCALAR
            if function is torch.ops.aten._to_copy.default:
                kwargs["device"] = args[0].device  # and not to the CPU, for safekeeping
        elif function is torch.ops.aten.copy_.default:
            return args[0]
        args, kwargs = tree_map(_to_meta, (args, kwargs))
        return function(*args, **kwargs)


def _to_meta(value: object) -> object:
    """Return a tensor with an axis as one without values; operations take no two devices."""
    return value.to("meta") if isinstance(value, torch.Tensor) and value.dim() else value


@contextlib.contextmanager
def on_meta() -> "Iterator[None]":
    """Make new tensors on the meta device inside, and take a value that is not there for one."""
    with WithoutValues(), torch.device("meta"):
        yield


def _on_meta(value: object) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.is_meta


def _fake(value: object) -> TypeGuard[FakeTensor]:
    return isinstance(value, FakeTensor)


def _any_fake(values: "Iterable[object]") -> bool:
    return any(
        _any_fake(value) if isinstance(value, list | tuple) else isinstance(value, FakeTensor)
        for value in values
    )


def _really(
    function: OpOverload, args: "tuple[object, ...]", kwargs: "Mapping[str, object]"
) -> object:
    with unset_fake_temporarily():
        return function(*args, **kwargs)


def _wanted(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's values may decide what is computed: masks, labels, counters of steps."""
    is_whole = not (tensor.is_floating_point() or tensor.is_complex())
    return tensor.numel() <= (LARGEST if is_whole else 1)


def _as_numbers(indices: "Sequence[object]") -> list[object]:
    """Return an index whose masks are the positions that they mark: their number is a shape."""
    found: list[object] = []
    for index in indices:
        if isinstance(index, torch.Tensor) and index.dtype == torch.bool and not _fake(index):
            with unset_fake_temporarily():
                found.extend(index.nonzero(as_tuple=True))
        else:
            found.append(index)
    return found


def mode() -> FakeTensorMode:
    """Return a mode under which fake and real tensors go together."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def imitate(model: nn.Module, device: torch.device, fake: FakeTensorMode) -> None:
    """Put fake tensors on `device` into the places of a model's parameters and buffers."""
    made: dict[int, torch.Tensor] = {}

    def imitation(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:  # tied weights stay tied
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            is_weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
        return made[id(tensor)]

    with fake:
        for module in model.modules():
            if quantized.holds(module):
                quantized.pack(module, device)
            for name, tensor in _own(module):
                if _fake(tensor):
                    continue
                places = module._parameters if name in module._parameters else module._buffers
                places[name] = imitation(tensor)  # type: ignore[assignment]


def _own(module: nn.Module) -> "Iterator[tuple[str, torch.Tensor]]":
    yield from [*module.named_parameters(recurse=False, remove_duplicate=False)]
    yield from [*module.named_buffers(recurse=False, remove_duplicate=False)]
