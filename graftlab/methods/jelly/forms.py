"""How an adapter sits on a layer, and how that travels in its file."""

from dataclasses import dataclass

import torch
from torch import Tensor

METHODS = ("exact", "tip", "tip_preserve", "merge_reinit", "none")
"""Ways to switch; their places here are what adapter files hold, so that new ones go to the end."""


@dataclass(frozen=True)
class Form:
    """How an adapter sits on a layer. It travels with the tensors, as three integers."""

    sequential: bool
    switch_step: int | None = None
    """After how many optimizer steps it switched to parallel."""
    switch_method: str | None = None

    @property
    def merged(self) -> bool:
        """Whether what was learned before the switch is kept as a frozen pair of its own."""
        return self.switch_method == "merge_reinit"

    def encode(self) -> Tensor:
        """Return the form as integers (3,)."""
        step = -1 if self.switch_step is None else self.switch_step
        method = -1 if self.switch_method is None else METHODS.index(self.switch_method)
        return torch.tensor([int(self.sequential), step, method])

    @classmethod
    def decode(cls, code: Tensor) -> "Form":
        """Return the form that `encode` has written."""
        sequential, step, method = code.tolist()
        return cls(
            bool(sequential),
            None if step < 0 else step,
            None if method < 0 else METHODS[method],
        )


@dataclass(frozen=True)
class Change:
    """What a switch did to one layer."""

    relative_change: float
    """|change after - change before| / |change before| of the layer's weight, Frobenius norms."""
    effective_rank: tuple[float, float]
    """Of A, before and after."""
    norm_ratio: float
    """|B after| / |B before|; 1 where B was zero and still is."""
