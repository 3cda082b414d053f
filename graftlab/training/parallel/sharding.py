"""Who of the processes holds which weights: each all of them, or each a shard of every one.

A launcher asks for shards (FSDP, DeepSpeed) by variables of the environment. They are read once and taken
out of it: accelerate and transformers would each act on them on their own.
"""

import functools
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from graftlab.training import optimizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from graftlab.training.config import Config
    from graftlab.training.parallel.processes import Processes

WHOLE, FSDP, ZERO = "whole", "fsdp", "zero"
SWITCHES = {"ACCELERATE_USE_FSDP": FSDP, "ACCELERATE_USE_DEEPSPEED": ZERO}
SETTINGS = ("FSDP_", "ACCELERATE_DEEPSPEED_")  # prefixes of the variables that say how


@dataclass(frozen=True)
class Asked:
    """What a launcher asks for."""

    kind: str = WHOLE
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment that say how."""

    def on(self, name: str, default: bool = False) -> bool:
        return said_yes(self.settings.get(name, str(default)))


def said_yes(value: str) -> bool:
    """Return whether accelerate takes the value of a variable for yes."""
    return value.lower() in ("1", "true", "yes", "y", "on", "t")


@functools.cache
def asked() -> Asked:
    """Return what this process's launcher asks for, the same at every call."""
    kinds = [kind for name, kind in SWITCHES.items() if said_yes(os.environ.pop(name, ""))]
    if not kinds:
        return Asked()
    found = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
    for name in found:
        del os.environ[name]
    return Asked(kinds[0], found)


class Sharding(Protocol):
    """What is done in another way where no process holds the whole model.

    All processes call each of these, at the same moment.
    """

    name: str
    lockstep: bool
    """Whether weights are exchanged in forward and backward passes: all must make as many of them."""

    def check(self, config: "Config", steers: bool, quantized: bool) -> None:
        """Refuse what cannot be done, before anything is loaded; `steers` is a method whose hooks decide
        from weights and gradients.

        Raises:
            ConfigError: a setting of the launcher, or the run file's, that does not go with it.
        """
        ...

    def shard(self, model: "nn.Module", device: "torch.device", steered: bool) -> None:
        """Leave this process its shard of the weights; they lie on `device` afterwards."""
        ...

    def begin(
        self, model: "nn.Module", made: "torch.optim.Optimizer", config: "Config"
    ) -> "nn.Module":
        """Take over the optimizer; return the model as training's forward passes see it."""
        ...

    def backward(self, loss: "Tensor") -> None:
        """Add a loss's gradients, of which sums over all processes are wanted, not means."""
        ...

    def update(
        self, made: "torch.optim.Optimizer", scaler: Any, limit: float, finite: bool
    ) -> tuple[float, bool]:
        """Clip the gradients to the norm `limit` and make a step with the rates that the groups have, if the
        loss was finite and they are; return their norm and whether the weights have moved."""
        ...

    def settle(self, model: "nn.Module") -> None:
        """Hold no more than its shard: after forward passes without a backward pass."""
        ...

    def tensors(self, model: "nn.Module", named: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Return tensors whole; nothing but on the main process, where that takes room."""
        ...

    def moments(self, made: "torch.optim.Optimizer") -> dict[str, Any]:
        """Return the optimizer's state whole, by parameter name, as `optimizer.state` does."""
        ...

    def put(self, target: "Tensor", value: "Tensor") -> None:
        """Copy a whole tensor into a parameter or buffer."""
        ...

    def put_moments(self, made: "torch.optim.Optimizer", saved: Mapping[str, Any]) -> None:
        """Put back what `moments` returned."""
        ...

    def whole(self, model: "nn.Module") -> Any:
        """Return a context in which the main process's model has its trainable weights whole."""
        ...


class Whole:
    """Every process holds the whole model: data parallel, or one process alone."""

    name = WHOLE
    lockstep = False

    def check(self, config: "Config", steers: bool, quantized: bool) -> None:
        """Refuse nothing."""

    def shard(self, model: "nn.Module", device: "torch.device", steered: bool) -> None:
        """Leave the model as it is."""

    def begin(
        self, model: "nn.Module", made: "torch.optim.Optimizer", config: "Config"
    ) -> "nn.Module":
        """Leave the optimizer as it is."""
        return model

    def backward(self, loss: "Tensor") -> None:
        """Add the gradients of this process's share; they are summed once a step."""
        loss.backward()

    def update(
        self, made: "torch.optim.Optimizer", scaler: Any, limit: float, finite: bool
    ) -> tuple[float, bool]:
        """Clip, and make a step if all is finite."""
        return clipped_step(made, scaler, limit, finite)

    def settle(self, model: "nn.Module") -> None:
        """There are no shards."""

    def tensors(self, model: "nn.Module", named: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Return them as they are."""
        return {name: tensor.detach() for name, tensor in named.items()}

    def moments(self, made: "torch.optim.Optimizer") -> dict[str, Any]:
        """Return the optimizer's state by parameter name."""
        return optimizer.state(made)

    def put(self, target: "Tensor", value: "Tensor") -> None:
        """Copy it."""
        import torch

        with torch.no_grad():
            target.copy_(value)

    def put_moments(self, made: "torch.optim.Optimizer", saved: Mapping[str, Any]) -> None:
        """Put the optimizer's state back."""
        optimizer.load_state(made, saved)

    @contextmanager
    def whole(self, model: "nn.Module") -> Iterator[None]:
        """They are whole."""
        yield


def is_shard(tensor: "Tensor") -> bool:
    """Return whether this process holds a part of the tensor only."""
    return hasattr(tensor, "full_tensor")


def shape(tensor: Any) -> "torch.Size":
    """Return the whole tensor's shape: DeepSpeed leaves a weight that it has shared out none."""
    found: torch.Size = getattr(tensor, "ds_shape", tensor.shape)
    return found


def nbytes(tensor: "Tensor") -> int:
    """Return the bytes of the whole tensor."""
    return math.prod(shape(tensor)) * tensor.element_size()


def clipped_step(
    made: "torch.optim.Optimizer", scaler: Any, limit: float, finite: bool
) -> tuple[float, bool]:
    """Do what `Sharding.update` says, with gradients that are whole or shards all; 0 is no limit."""
    import torch

    parameters = [p for group in made.param_groups for p in group["params"]]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if is_shard(norm):
        norm = norm.full_tensor()  # type: ignore[attr-defined]
    torch.nn.utils.clip_grads_with_norm_(parameters, limit or math.inf, norm)
    size = norm.item()
    if not finite or not math.isfinite(size):
        return size, False
    if scaler:
        scaler.step(made)
    else:
        made.step()
    return size, True


def make(found: Asked, processes: "Processes") -> Sharding:
    """Return the way of sharing that a launcher asks for.

    Raises:
        ConfigError: it asks for a part of it that is not there.
    """
    if found.kind == FSDP:
        from graftlab.training.parallel.fsdp import Fsdp

        return Fsdp(found, processes)
    if found.kind == ZERO:
        from graftlab.training.parallel.zero import Zero

        return Zero(found, processes)
    return Whole()
