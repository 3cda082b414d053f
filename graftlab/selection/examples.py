"""Which training examples are looked at, how they are folded, and how they are drawn again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, DataError
from graftlab.seeds import mix
from graftlab.selection.request import Config

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers


# Shapes: N examples, B bootstrap samples, E values of an encoder's vector.


@dataclass(frozen=True)
class Examples:
    """What is looked at: training examples, drawn already."""

    texts: Sequence[str]
    pairs: Sequence[str | None]
    labels: "Integers"  # (N,)
    classes: Sequence[str]
    encoded: "Floats"  # (N, E)
    """The frozen encoder's pooled vectors, as PiFi would plug them in."""


def draw(labels: "Integers", classes: Sequence[str], config: Config) -> "Integers":
    """Return the positions of `config.samples` examples, in their order: as many of each class as of any
    other, but for classes that have fewer, whose share goes to the others.

    Raises:
        DataError: all examples have one class, or a class has fewer than there are folds.
        ConfigError: fewer samples are asked for than the folds need.
    """
    import numpy as np

    counts = np.bincount(labels, minlength=len(classes))
    if (counts > 0).sum() < 2:
        raise DataError(
            f"all {len(labels)} training examples have the class {classes[int(counts.argmax())]!r}: "
            f"nothing tells layers apart. Give a task with two classes or more, or method.layer a number."
        )
    if few := [f"{classes[c]!r} ({n})" for c, n in enumerate(counts) if n < config.folds]:
        raise DataError(
            f"method.selection.folds is {config.folds}, but of these classes there are fewer training "
            f"examples: {', '.join(few)}. Use fewer folds, or give more data.",
            kind="too_few",
        )
    if config.samples < config.folds * len(classes):
        raise ConfigError(
            f"method.selection.samples is {config.samples}; with {len(classes)} classes and "
            f"{config.folds} folds, {config.folds * len(classes)} are needed at least.",
            kind="too_few",
        )
    quotas = _quotas(counts, config.samples)
    chosen = [
        np.random.default_rng(mix(config.seed, "sample", c)).permutation(
            np.flatnonzero(labels == c)
        )[: quotas[c]]
        for c in range(len(classes))
    ]
    positions: Integers = np.sort(np.concatenate(chosen))
    return positions


def _quotas(counts: "Integers", samples: int) -> "Integers":
    """Return how many examples each class gives: the same for all, as far as it has them."""
    import numpy as np

    quotas = np.zeros_like(counts)
    for _ in range(int(min(samples, counts.sum()))):
        open_classes = np.flatnonzero(quotas < counts)
        quotas[open_classes[quotas[open_classes].argmin()]] += 1
    return quotas


def folds(labels_N: "Integers", num_folds: int, seed: int) -> "Integers":
    """Return (N,) which fold tests each example; each class is spread evenly."""
    import numpy as np

    folds_N = np.empty(len(labels_N), dtype=np.int64)
    for c in np.unique(labels_N):
        own = np.random.default_rng(mix(seed, "folds", int(c))).permutation(
            np.flatnonzero(labels_N == c)
        )
        folds_N[own] = np.arange(len(own)) % num_folds
    return folds_N


def resamples(labels_N: "Integers", count: int, seed: int) -> "Floats":
    """Return (1 + count, N) example weights: ones, and bootstrap samples that keep each class's size."""
    import numpy as np

    weights_BN = np.ones((1 + count, len(labels_N)))
    for c in np.unique(labels_N):
        own = np.flatnonzero(labels_N == c)
        draws = np.random.default_rng(mix(seed, "bootstrap", int(c)))
        weights_BN[1:, own] = draws.multinomial(len(own), np.full(len(own), 1 / len(own)), count)
    return weights_BN
