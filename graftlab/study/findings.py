"""What a comparison finds beside its rows: differences of pairs, and what tuning has come to."""

from dataclasses import dataclass
from typing import Literal

Procedure = Literal[
    "seeds and examples, paired",
    "seeds and examples, seeds not paired",
    "seeds, paired",
    "seeds, not paired",
    "seeds with their splits, paired",
    "seeds with their splits, not paired",
    "examples of one seed",
]
"""What counts as a sample. With examples, the interval is for others of their kind too; with seeds alone it
is for these test examples, with their splits for others drawn from the same rows; of one seed it says nothing
about other seeds, and no row is called better."""


@dataclass(frozen=True)
class Beside:
    """What other procedures say of a difference; none of them leads."""

    permutation_p: float | None
    """The two methods exchanged, seed by seed where paired; exact where that can be tried out. None
    where seeds have drawn their splits from the same rows, and are no sample; as `epsilon_min` is."""
    permutation_smallest_p: float | None
    """The smallest that so many seeds can give: with five pairs .0625."""
    mcnemar_p: dict[int, float]
    """By seed, of these two runs alone; where examples are right or wrong."""
    epsilon_min: float | None
    """Almost stochastic order of first over second, in the direction that is better: below .5 the first
    is larger, .2 is the usual limit; at the `level` of the difference, corrected for all pairs."""
    epsilon_min_other: float | None
    """Of second over first."""
    improvement: float | None
    """Probability that a seed of the first is better than one of the second."""


@dataclass(frozen=True)
class Difference:
    """Two rows of one task and backbone: the score of the first less that of the second."""

    task: str
    backbone: str
    first: str
    """`Row.label`."""
    second: str
    metric: str
    split: str
    difference: float | None
    """None where one of them has no score, or they share no seed and pairing is wanted."""
    standard_error: float | None
    degrees_of_freedom: float | None
    low: float | None
    """Ends of the interval at `level`, of this pair alone."""
    high: float | None
    level: float
    p: float | None
    p_holm: float | None
    """Corrected for all pairs of the study (Holm, 1979): the chance of any false alarm. None of one seed."""
    p_benjamini_hochberg: float | None
    """The share of false alarms among what is called a difference."""
    pairs: int
    """How many were corrected for."""
    better: str | None
    """Label of the row that is seen to be better, by `p_holm`; None: no difference can be seen."""
    procedure: Procedure | None
    seeds: int
    """Of the row with fewer; where paired, those that both have."""
    examples: int | None
    """None where they are no sample."""
    sources: int | None
    """How many sources the examples come from, where several share one: these are then the sample."""
    smallest_visible: float | None
    """A true difference that such a pair finds four times in five, corrected for all pairs as Bonferroni's
    inequality does, which is Holm's first step. None of one seed."""
    seeds_wanted: int | None
    """With which the difference as it stands would be found four times in five, corrected as the above; None:
    never, or unknown."""
    reason: str | None
    """Why there is no interval, or why it is of less than seeds and examples."""
    beside: Beside


@dataclass(frozen=True)
class Forgetting:
    """How much worse a row's runs do on something that they were not trained on than their base."""

    on: str
    """What: `general`, a file of texts, or a task."""
    measure: Literal["loss", "accuracy"]
    base: float
    """Of the base without an adapter."""
    mean: float
    """Over the seeds: by how much the loss has risen, or the accuracy has fallen. Below 0 nothing is lost."""
    deviation: float | None
    """Standard deviation over the seeds; None for fewer than two."""
    values: dict[int, float]
    """By seed."""
    low: float | None
    """Ends of the 95 % interval of the mean, over seeds and examples, of one seed over examples alone; None
    where nothing differs from the base."""
    high: float | None
    examples: int


@dataclass(frozen=True)
class Point:
    """A setting that was tried, and what it gave on validation."""

    setting: dict[str, str]
    value: float | None
    """The mean over the seeds that choose; None where a run failed."""
    deviation: float | None
    """Standard deviation over these seeds."""
    chosen: bool


@dataclass(frozen=True)
class Tuning:
    """How one method was tuned on one task and backbone."""

    task: str
    backbone: str
    method: str
    metric: str | None
    higher_is_better: bool
    points: tuple[Point, ...]
    edges: dict[str, str]
    """Keys whose chosen value is the `smallest` or `largest` that was tried: the best may lie beyond."""
    expected_best: tuple[float, ...]
    """Expected best on validation of 1, 2, ... settings tried (Dodge et al., 2019)."""
