"""Who of the processes holds which weights: each all of them, or each a shard of every one.

Which way it is, a launcher says: see `request`.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from graftlab.training import optimizer
from graftlab.training.optimizer import Moments
from graftlab.training.parallel.request import WHOLE

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from graftlab.training.config import Config


class Engine(Protocol):
    """Has the backward pass and the optimizer's step in the place of torch's own."""

    def backward(self, loss: "Tensor") -> None:
        """Add a loss's gradients, of which sums over all processes are wanted, not means."""
        ...

    def update(self) -> tuple[float, bool]:
        """Clip the gradients and make a step with the rates that the groups have, if they are finite;
        return their norm and whether the weights have moved."""
        ...


class Sharding(Protocol):
    """What is done in another way where no process holds the whole model.

    All processes call each of these, at the same moment.
    """

    name: str
    lockstep: bool
    """Whether weights are exchanged in forward and backward passes: all must make as many of them."""
    engine: Engine | None
    """From `begin` on; None where gradients and steps are torch's own."""

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

    def settle(self, model: "nn.Module") -> None:
        """Hold no more than its shard: after forward passes without a backward pass."""
        ...

    def tensors(self, model: "nn.Module", named: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Return tensors whole; nothing but on the main process, where that takes room."""
        ...

    def moments(self, made: "torch.optim.Optimizer") -> Moments:
        """Return the optimizer's state whole, by parameter name, as `optimizer.state` does."""
        ...

    def put(self, target: "Tensor", value: "Tensor") -> None:
        """Copy a whole tensor into a parameter or buffer."""
        ...

    def put_moments(self, made: "torch.optim.Optimizer", saved: Moments) -> None:
        """Put back what `moments` returned."""
        ...

    def whole(self, model: "nn.Module") -> AbstractContextManager[None]:
        """Return a context in which the main process's model has its trainable weights whole."""
        ...


class Whole:
    """Every process holds the whole model: data parallel, or one process alone."""

    name = WHOLE
    lockstep = False
    engine: Engine | None = None

    def check(self, config: "Config", steers: bool, quantized: bool) -> None:
        """Refuse nothing."""

    def shard(self, model: "nn.Module", device: "torch.device", steered: bool) -> None:
        """Leave the model as it is."""

    def begin(
        self, model: "nn.Module", made: "torch.optim.Optimizer", config: "Config"
    ) -> "nn.Module":
        """Leave the optimizer as it is."""
        return model

    def settle(self, model: "nn.Module") -> None:
        """There are no shards."""

    def tensors(self, model: "nn.Module", named: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Return them as they are."""
        return {name: tensor.detach() for name, tensor in named.items()}

    def moments(self, made: "torch.optim.Optimizer") -> Moments:
        """Return the optimizer's state by parameter name."""
        return optimizer.state(made)

    def put(self, target: "Tensor", value: "Tensor") -> None:
        """Copy it."""
        import torch

        with torch.no_grad():
            target.copy_(value)

    def put_moments(self, made: "torch.optim.Optimizer", saved: Moments) -> None:
        """Put the optimizer's state back."""
        optimizer.load_state(made, saved)

    @contextmanager
    def whole(self, model: "nn.Module") -> Iterator[None]:
        """They are whole."""
        yield


def is_shard(tensor: "Tensor") -> bool:
    """Return whether this process holds a part of the tensor only."""
    return hasattr(tensor, "full_tensor")


def shape(tensor: "Tensor") -> "torch.Size":
    """Return the whole tensor's shape: DeepSpeed leaves a weight that it has shared out none."""
    found: torch.Size = getattr(tensor, "ds_shape", tensor.shape)
    return found


def nbytes(tensor: "Tensor") -> int:
    """Return the bytes of the whole tensor."""
    return math.prod(shape(tensor)) * tensor.element_size()
