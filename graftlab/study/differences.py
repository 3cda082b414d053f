"""Differences of all pairs of rows: an interval, a p-value corrected for their number, and who is better."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftlab.errors import CheckpointError
from graftlab.rundir.run import Run
from graftlab.runs import units
from graftlab.runs.units import Units
from graftlab.statistics import aggregates, components, mcnemar, multiplicity, permutation, power
from graftlab.statistics import seeds as over_seeds
from graftlab.statistics.dominance import almost_stochastic_order
from graftlab.statistics.estimates import LEVEL, Estimate
from graftlab.study.findings import Beside, Difference, Procedure
from graftlab.study.records import Row

NO_VARIANCE = (
    "the difference is the same at every seed and example: there is nothing to judge it by"
)
LARGEST = 1e150
"""Of scores: the square of a larger one, such as the perplexity of what has diverged, is no number."""
OWN_SPLITS = "each seed draws its own splits from the same rows"
NO_BESIDE = Beside(None, None, {}, None, None, None)


@dataclass(frozen=True)
class _Sample:
    """A row with what its runs have predicted."""

    row: Row
    values: dict[int, float]
    """By seed."""
    units: dict[int, Units | str]
    """By seed; why there are none."""
    overlap: float | None
    """As `differences` has it, the largest of the row's runs."""


@dataclass(frozen=True)
class _Judged:
    """An estimate, and how it came about."""

    estimate: Estimate | None
    procedure: Procedure | None
    seeds: tuple[int, ...]
    """Those that both rows have, where pairs; else none."""
    examples: int | None
    reason: str | None

    @property
    def claims(self) -> bool:
        """Whether it can say of methods, not of two runs alone, that they differ."""
        known = self.estimate is not None and self.estimate.p is not None
        return known and self.procedure != "examples of one seed"


def differences(
    groups: Sequence[Sequence[Row]], runs: Path | None, overlaps: Mapping[str, float] | None = None
) -> tuple[Difference, ...]:
    """Return the differences of all pairs within each group, corrected for all of them together.

    `runs` is the folder of the runs, whose predictions are read; None: there are none. `overlaps` has, by
    their folders, the runs that drew with their seed what they were scored on, and how many rows these are
    for each that was there to train on.
    """
    pairs: list[tuple[_Sample, _Sample]] = []
    for rows in groups:
        pairs += itertools.combinations([_sample(row, runs, overlaps or {}) for row in rows], 2)
    every = [_judge(*pair) for pair in pairs]
    count = sum(judged.claims for judged in every)
    level = 1 - (1 - LEVEL) / max(1, count)
    found = [
        replace(
            _difference(*pair, judged, level),
            pairs=count,
            beside=_beside(*pair, level),
        )
        for pair, judged in zip(pairs, every, strict=True)
    ]
    return tuple(_corrected(found, pairs, [place for place, one in enumerate(every) if one.claims]))


def _corrected(
    found: list[Difference], pairs: Sequence[tuple[_Sample, _Sample]], claims: Sequence[int]
) -> list[Difference]:
    """Return the differences, with p-values for all that claim something together, and who is better."""
    p_values = [p for place in claims if (p := found[place].p) is not None]
    corrected = zip(
        claims, multiplicity.holm(p_values), multiplicity.benjamini_hochberg(p_values), strict=True
    )
    for place, holm, false_share in corrected:
        one, higher = found[place], pairs[place][0].row.higher_is_better
        assert one.difference is not None
        first_is_better = (one.difference > 0) == higher
        better = one.first if first_is_better else one.second
        found[place] = replace(
            one,
            p_holm=holm,
            p_benjamini_hochberg=false_share,
            better=better if holm < 1 - LEVEL and one.difference else None,
        )
    return found


def _sample(row: Row, runs: Path | None, overlaps: Mapping[str, float]) -> _Sample:
    values = {seed: value for seed, value in row.score.values.items() if value is not None}
    own = [overlaps[row.runs[seed]] for seed in values if row.runs[seed] in overlaps]
    return _Sample(
        row,
        values,
        {seed: _units(runs, row, seed) for seed in values} if row.metric else {},
        max(own, default=None),
    )


def _units(runs: Path | None, row: Row, seed: int) -> Units | str:
    if runs is None or row.metric is None:
        return "no predictions are at hand"
    try:
        return units.of_run(Run(runs / row.runs[seed]), row.ranked_by, row.metric)
    except CheckpointError as error:
        return str(error)


def _difference(first: _Sample, second: _Sample, judged: _Judged, level: float) -> Difference:
    one, estimate = first.row, judged.estimate
    ends = estimate.interval() if estimate else None
    num_seeds = len(judged.seeds) or min(len(first.values), len(second.values))
    claim = estimate if judged.claims else None
    return Difference(
        task=one.task,
        backbone=one.backbone,
        first=one.label,
        second=second.row.label,
        metric=one.metric or second.row.metric or "",
        split=one.ranked_by,
        difference=estimate.value if estimate else _gap(first, second),
        standard_error=estimate.standard_error if estimate and ends else None,
        degrees_of_freedom=estimate.degrees_of_freedom if estimate and ends else None,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        level=LEVEL,
        p=estimate.p if estimate else None,
        p_holm=None,
        p_benjamini_hochberg=None,
        pairs=0,
        better=None,
        procedure=judged.procedure,
        seeds=num_seeds,
        examples=judged.examples,
        sources=_sources(first) if judged.examples else None,
        smallest_visible=power.smallest_visible(claim, level) if claim else None,
        seeds_wanted=power.seeds_wanted(claim.value, claim, num_seeds, level) if claim else None,
        reason=judged.reason if ends or not estimate else NO_VARIANCE,
        beside=NO_BESIDE,
    )


def _gap(first: _Sample, second: _Sample) -> float | None:
    means = first.row.score.mean, second.row.score.mean
    return None if means[0] is None or means[1] is None else means[0] - means[1]


def _judge(first: _Sample, second: _Sample) -> _Judged:
    """Return the estimate that the runs of two rows allow."""
    if not first.values or not second.values:
        return _Judged(None, None, (), None, "a row has no score")
    if _diverged(first, second):
        return _Judged(None, None, (), None, f"a score is beyond {LARGEST:g}")
    same_seeds = first.values.keys() == second.values.keys()
    seeds = tuple(first.values) if same_seeds else ()
    reason = None if same_seeds else "the rows have other seeds"
    known = _crossed(first, second)
    if len(first.values) == 1 == len(second.values):
        before = f"{reason}; " if reason else ""
        if isinstance(known, str):
            return _Judged(None, None, seeds, None, f"{before}one seed, and {known}")
        one, two, examples = known
        found = components.of_examples(one[0], two[0])
        said = f"{before}one seed: the interval says nothing about other seeds"
        return _Judged(_put(found, first, second), "examples of one seed", seeds, examples, said)
    if min(len(first.values), len(second.values)) < 2:
        return _Judged(None, None, (), None, "a row has one seed, the other several")
    if isinstance(known, str):
        return _by_seeds(first, second, known)
    one, two, examples = known
    if same_seeds:
        found = components.paired(one, two)
        how: Procedure = "seeds and examples, paired"
    else:
        found = components.unpaired(one, two)
        how = "seeds and examples, seeds not paired"
    return _Judged(_put(found, first, second), how, seeds, examples, reason)


def _diverged(*samples: _Sample) -> bool:
    return any(abs(value) > LARGEST for one in samples for value in one.values.values())


def _by_seeds(first: _Sample, second: _Sample, why: str) -> _Judged:
    """Return the estimate of the scores alone; `why` are the examples no sample?"""
    overlap = _overlap(first, second)
    if first.values.keys() == second.values.keys():
        seeds = tuple(first.values)
        pair = list(first.values.values()), [second.values[seed] for seed in seeds]
        how: Procedure = "seeds, paired" if overlap is None else "seeds with their splits, paired"
        return _Judged(over_seeds.paired(*pair, overlap or 0.0), how, seeds, None, why)
    sides = list(first.values.values()), list(second.values.values())
    found = over_seeds.unpaired(*sides, overlap or 0.0)
    how = "seeds, not paired" if overlap is None else "seeds with their splits, not paired"
    return _Judged(found, how, (), None, f"the rows have other seeds; {why}")


def _overlap(first: _Sample, second: _Sample) -> float | None:
    """Return the rows scored per row trained on where seeds differ in these; None where they do not."""
    known = [one.overlap for one in (first, second) if one.overlap is not None]
    several = len({*first.values, *second.values}) > 1
    return max(known, default=None) if several else None


def _put(found: Estimate, first: _Sample, second: _Sample) -> Estimate:
    """Return an estimate about the difference of the means as they are reported: units may round it."""
    gap = _gap(first, second)
    return found if gap is None else found._replace(value=gap)


def _crossed(
    first: _Sample, second: _Sample
) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | str:
    """Return the units of both rows, a line a seed in one order, and how many examples; or why there are
    none."""
    if _overlap(first, second) is not None:
        return OWN_SPLITS
    order = [*first.values] if first.values.keys() == second.values.keys() else None
    lines: list[list[NDArray[np.float64]]] = []
    keys, examples = set(), 0
    for sample in (first, second):
        own = [sample.units[seed] for seed in order or sample.values]
        if reasons := [one for one in own if isinstance(one, str)]:
            return reasons[0]
        found = [one for one in own if isinstance(one, Units)]
        keys |= {one.key for one in found}
        examples = found[0].examples
        lines.append([one.values for one in found])
    if len(keys) > 1:
        return "the runs were asked other examples"
    return np.array(lines[0]), np.array(lines[1]), examples


def _sources(sample: _Sample) -> int | None:
    return next((one.sources for one in sample.units.values() if isinstance(one, Units)), None)


def _beside(first: _Sample, second: _Sample, confidence: float) -> Beside:
    """Return what other procedures say; more is better is what they are told. Those that take seeds for
    independent samples say nothing where these have drawn their splits from the same rows."""
    if _diverged(first, second):
        return NO_BESIDE
    sign = 1.0 if first.row.higher_is_better else -1.0
    seeds = list(first.values)
    paired = first.values.keys() == second.values.keys()
    ours = [sign * first.values[seed] for seed in seeds]
    theirs = [sign * second.values[seed] for seed in (seeds if paired else second.values)]
    if min(len(ours), len(theirs)) < 2:
        return replace(NO_BESIDE, mcnemar_p=_mcnemar(first, second))
    improvement = aggregates.probability_of_improvement(ours, theirs)
    if _overlap(first, second) is not None:
        return replace(NO_BESIDE, mcnemar_p=_mcnemar(first, second), improvement=improvement)
    exchanged = (permutation.paired if paired else permutation.unpaired)(ours, theirs)
    orders = (
        almost_stochastic_order(ours, theirs, confidence),
        almost_stochastic_order(theirs, ours, confidence),
    )
    return Beside(
        exchanged.p,
        exchanged.smallest,
        _mcnemar(first, second),
        orders[0].epsilon_min,
        orders[1].epsilon_min,
        improvement,
    )


def _mcnemar(first: _Sample, second: _Sample) -> dict[int, float]:
    found = {}
    for seed in first.units.keys() & second.units.keys():
        one, two = first.units[seed], second.units[seed]
        if isinstance(one, str) or isinstance(two, str) or one.key != two.key:
            continue
        if one.right is not None and two.right is not None:
            found[seed] = mcnemar.mcnemar(one.right, two.right).p
    return dict(sorted(found.items()))
