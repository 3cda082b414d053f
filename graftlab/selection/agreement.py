"""Do scores and results agree? Rank correlation with its permutation test, and what a choice costs."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats


# Shapes: L layers, P permutations.

MOST_EXACT = 8  # layers of which all orders are tried: 40 320
DRAWS = 20_000  # orders that are drawn where there are more
LEVEL = 0.05


class Agreement(NamedTuple):
    """How well the ranks of scores and results agree."""

    correlation: float | None
    """Spearman's; None where all scores or all results are the same, or there are fewer than three."""
    p_value: float | None
    """Share of orders of the results that agree at least as well, this one included: one-sided, as a
    score that works agrees."""
    smallest_p: float
    """What the p-value would be were the agreement perfect: with few layers, little can be shown."""
    needed: float | None
    """The least correlation that would have a p-value of 0.05 or less; None where none would."""
    num_layers: int


class Regret(NamedTuple):
    """What the best layer has more than others, in the metric's own direction: 0 is none."""

    chosen: float
    last: float
    random: float
    """Expected for a layer drawn at random."""


def agreement(scores: Sequence[float | None], results: Sequence[float], seed: int) -> Agreement:
    """Return the rank correlation over the layers whose score is defined, with a permutation test: of all
    orders up to eight layers, of 20 000 drawn ones beyond."""
    import numpy as np
    from scipy.stats import rankdata

    pairs = [(s, r) for s, r in zip(scores, results, strict=True) if s is not None]
    count = len(pairs)
    if count < 3 or any(len({pair[i] for pair in pairs}) == 1 for i in (0, 1)):
        return Agreement(None, None, 1.0, None, count)
    x_L, y_L = (rankdata([pair[i] for pair in pairs]) for i in (0, 1))
    x_L, y_L = x_L - x_L.mean(), y_L - y_L.mean()
    null_P = _orders(y_L, count, seed) @ x_L / math.sqrt((x_L @ x_L) * (y_L @ y_L))
    found = float(x_L @ y_L / math.sqrt((x_L @ x_L) * (y_L @ y_L)))
    near = 1e-9  # equal correlations differ by rounding
    exact = count <= MOST_EXACT
    values, counts = np.unique(np.round(null_P, 9), return_counts=True)
    shares = (counts[::-1].cumsum()[::-1] + (not exact)) / (len(null_P) + (not exact))
    needed = values[shares <= LEVEL]
    p_value = ((null_P >= found - near).sum() + (not exact)) / (len(null_P) + (not exact))
    return Agreement(
        found, float(p_value), float(shares[-1]), float(needed[0]) if len(needed) else None, count
    )


def _orders(values_L: "Floats", count: int, seed: int) -> "Floats":
    """Return (P, L) the values in all orders, or in drawn ones."""
    import numpy as np

    if count <= MOST_EXACT:
        return np.array(list(itertools.permutations(values_L)))
    draws = np.random.default_rng(seed)
    return draws.permuted(np.tile(values_L, (DRAWS, 1)), axis=1)


def regret(results: Mapping[int, float], chosen: int, last: int, higher_is_better: bool) -> Regret:
    """Return what the best of `results` (layer -> metric) has more than the chosen layer, than the last,
    and than one drawn at random."""
    sign = 1 if higher_is_better else -1
    values = {layer: sign * value for layer, value in results.items()}
    best = max(values.values())
    return Regret(
        best - values[chosen], best - values[last], best - math.fsum(values.values()) / len(values)
    )


def statement(found: Agreement, cost: Regret, metric: str, error: float | None) -> str:
    """Return in plain words whether selection has worked. `error` is the standard error of one result."""
    if found.correlation is None or found.p_value is None:
        said = [f"Scores and results of {found.num_layers} layers have no rank correlation"]
    else:
        said = [
            f"Over {found.num_layers} layers, scores and validation {metric} have a rank correlation of "
            f"{found.correlation:+.2f} (p = {found.p_value:.3g}, one-sided)"
        ]
        if found.needed is None:
            said.append(f"So few layers cannot show agreement: p is {found.smallest_p:.2g} at best")
        else:
            said.append(
                f"With so many layers only {found.needed:+.2f} or more would be beyond chance at "
                f"{LEVEL:g}, and p is {found.smallest_p:.2g} at best"
            )
    said.append(
        f"The chosen layer is {cost.chosen:.4f} below the best, the last {cost.last:.4f}, a random one "
        f"{cost.random:.4f} on average"
    )
    if error is not None:
        said.append(
            f"One result has a standard error of {error:.4f}, so the best of {found.num_layers} is "
            f"partly luck"
        )
    return ". ".join(said) + "."
