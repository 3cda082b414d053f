"""How much of the label a layer's states show: one module a score, each with `score`; more is better.

`score(sample, weights_BN)` returns (B,) values, one for each row of example weights: the first row is all
ones and gives the score itself, the others are bootstrap samples of the same examples. What was fitted
(a probe, the components) stays as it is under resampling: the spread is that of the examples scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from graftlab.selection import space
from graftlab.selection.space import Undefined

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


__all__ = ["Sample", "Undefined", "class_mean"]

# Shapes: N examples, D values a state, B rows of example weights, K classes, C components.


@dataclass(frozen=True)
class Sample:
    """One layer's states with what scores may know of the examples."""

    states: "Floats"  # (N, D)
    """One state an example, of length 1."""
    labels: "Integers"  # (N,)
    """Classes 0..K-1, each there."""
    folds: "Integers"  # (N,)
    """In which part of the cross-validation an example is tested, 0 and up."""
    components: int | None
    """Principal components of the score space; None for the states as they are."""
    mapped_components: int = 16
    """Components of the correlation map, which is one whatever the score space."""
    top_components: int = 5
    plugged: "Sequence[Floats]" = field(default=())
    """For each fold (N, D): the encoder's vectors after this layer, as `plugin` sees them."""
    seed: int = 0

    @property
    def num_classes(self) -> int:
        return int(self.labels.max()) + 1

    @cached_property
    def projected(self) -> "Floats":
        """(N, C) all examples in the score space, which is fitted without those of the first fold."""
        return self._projected(self.components)

    @cached_property
    def mapped(self) -> "Floats":
        """(N, C) all examples on the principal components, fitted without those of the first fold."""
        return self._projected(self.mapped_components)

    def _projected(self, components: int | None) -> "Floats":
        return space.project(self.states, self.folds != 0, components)


def class_mean(values_N: "Floats", labels_N: "Integers", weights_BN: "Floats") -> "Floats":
    """Return (B,) the mean over classes of each class's weighted mean."""
    import numpy as np

    means = [
        weights_BN[:, labels_N == c] @ values_N[labels_N == c]
        / weights_BN[:, labels_N == c].sum(axis=1)
        for c in range(int(labels_N.max()) + 1)
    ]  # fmt: skip
    found: Floats = np.mean(means, axis=0)
    return found
