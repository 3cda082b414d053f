"""When to switch: the gradient of A keeps its direction while the adapter learns, and then loses it.

A state machine over one number a step, the coherence in [-1, 1], without tensors or clocks of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Trigger:
    """Fires when the average of the coherence has fallen to a share of its peak.

    The average is exponential, e = a C + (1 - a) e; the peak is kept from `warmup` coherences on, and
    it fires from `minimum` on, once e <= drop_ratio * peak (and peak > 0) has held `patience` times in a
    row, or at the latest at `latest`. All three count optimizer steps, those without a gradient too.
    """

    ema: float = 0.1
    drop_ratio: float = 0.2
    warmup: int = 50
    minimum: int = 100
    patience: int = 1
    latest: int | None = None
    steps: int = 0
    average: float | None = None
    peak: float = -math.inf
    below: int = 0

    def update(self, coherence: float | None) -> bool:
        """Take in a step's coherence, None where it is undefined, and return whether to switch now."""
        self.steps += 1
        if coherence is not None:
            kept = 1.0 - self.ema
            self.average = (
                coherence if self.average is None else self.ema * coherence + kept * self.average
            )
            if self.steps >= self.warmup:
                self.peak = max(self.peak, self.average)
            fallen = self.peak > 0 and self.average <= self.drop_ratio * self.peak
            self.below = self.below + 1 if fallen and self.steps >= self.minimum else 0
        late = self.latest is not None and self.steps >= self.latest
        return self.below >= self.patience or late

    def state_dict(self) -> dict[str, object]:
        """Return all of it, as JSON."""
        state = asdict(self)
        return state | {"peak": None if math.isinf(self.peak) else self.peak}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take back what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, -math.inf if name == "peak" and value is None else value)


def cosine(first: "Sequence[Tensor]", second: "Sequence[Tensor]") -> float | None:
    """Return the cosine of the angle between two lists of tensors, each taken as one long vector.

    None if one of them is zero, as A's gradient is while B is zero, or is not finite.
    """
    import torch

    products = []
    for a, b in zip(first, second, strict=True):
        a, b = a.flatten().double(), b.flatten().double()  # squares of 1e-20 are none in float32
        products.append(torch.stack([a @ b, a @ a, b @ b]))
    if not products:
        return None
    device = products[0].device
    dot, one, other = torch.stack([p.to(device) for p in products]).sum(0).tolist()
    if not one > 0 or not other > 0 or not math.isfinite(dot + one + other):
        return None
    return float(dot / math.sqrt(one * other))
