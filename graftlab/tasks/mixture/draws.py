"""Which task each draw of an epoch is of, and which of its examples.

An epoch draws as many examples as there are, n_1 + n_2 + ... Each task has its share of them by largest
remainder, so that only the order is left to chance; and a task's draws go through its examples in one
shuffled pass after another, across epochs: none comes again before all others have come.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from graftlab.errors import ConfigError
from graftlab.seeds import mix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Sampling = Literal["uniform", "proportional", "temperature"]


def shares(
    sizes: Sequence[int], sampling: Sampling, temperature: float, weights: Sequence[float] | None
) -> list[float]:
    """Return each task's share of the draws: its weight, or 1, n_i or n_i^(1/T), over their sum."""
    if weights is None:
        power = {"uniform": 0.0, "proportional": 1.0, "temperature": 1 / temperature}[sampling]
        weights = [size**power for size in sizes]
    total = sum(weights)
    return [weight / total for weight in weights]


def quotas(parts: Sequence[float], total: int) -> list[int]:
    """Return how many of `total` draws each part has, by largest remainder; of equal ones, the first."""
    whole = [int(part * total) for part in parts]
    rest = [part * total - floor for part, floor in zip(parts, whole, strict=True)]
    order = sorted(range(len(parts)), key=lambda i: -rest[i])
    for i in order[: total - sum(whole)]:
        whole[i] += 1
    return whole


def check_quotas(names: Sequence[str], found: Sequence[int]) -> None:
    """Raise a ConfigError if a task is never drawn."""
    for name, quota in zip(names, found, strict=True):
        if not quota:
            raise ConfigError(
                f"task.weights: of {sum(found)} draws an epoch none would be of {name!r}. Give it a larger "
                f"weight, or leave it out."
            )


def epoch_draws(
    sizes: Sequence[int], quota: Sequence[int], seed: int, epoch: int
) -> "NDArray[np.int64]":
    """Return the examples of an epoch in random order, numbered through all tasks.

    Task i's k-th draw of a run is place k mod n_i of its pass k div n_i; each pass has its own shuffle.
    """
    import numpy as np

    found = []
    start = 0
    for number, (size, count) in enumerate(zip(sizes, quota, strict=True)):
        passes, places = np.divmod(np.arange(epoch * count, (epoch + 1) * count), size)
        for one in np.unique(passes):
            order = np.random.default_rng(mix(seed, "pass", number, int(one))).permutation(size)
            found.append(start + order[places[passes == one]])
        start += size
    drawn = np.concatenate(found)
    return drawn[np.random.default_rng(mix(seed, "mixture", epoch)).permutation(len(drawn))]
