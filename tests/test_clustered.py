"""Differences over the same examples against scipy's paired t, copies of rows, and the jackknife."""

import numpy as np
import pytest
from scipy import stats

from graftlab.statistics import clustered
from graftlab.statistics.clustered import Totals

DRAWS = np.random.default_rng(0)
ONE, OTHER = DRAWS.normal(size=(2, 40))


def means(values: np.ndarray) -> Totals:
    return Totals(values, np.ones(len(values)))


def test_with_an_example_a_source_it_is_the_paired_t() -> None:
    found = clustered.difference(means(ONE), means(OTHER), range(40))
    expected = stats.ttest_rel(ONE, OTHER).confidence_interval(0.95)
    assert found is not None
    assert found.value == pytest.approx(ONE.mean() - OTHER.mean())
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_copies_of_a_sources_examples_are_no_news() -> None:
    once = clustered.difference(means(ONE), means(OTHER), range(40))
    copies = [place % 40 for place in range(120)]
    thrice = clustered.difference(means(np.tile(ONE, 3)), means(np.tile(OTHER, 3)), copies)
    assert once is not None
    assert thrice is not None
    assert thrice.interval == pytest.approx(once.interval)


def test_sums_over_weights_move_as_the_jackknife_has_it() -> None:
    weights = DRAWS.integers(1, 9, size=300).astype(float)
    sums = [weights * (1 + shift + 0.2 * DRAWS.normal(size=300)) for shift in (0.3, 0.0)]
    first, second = (Totals(of, weights) for of in sums)
    found = clustered.difference(first, second, range(300))

    def apart(kept: np.ndarray) -> float:
        return float((sums[0][kept].sum() - sums[1][kept].sum()) / weights[kept].sum())

    left = np.array([apart(np.arange(300) != place) for place in range(300)])
    error = np.sqrt(299 / 300 * ((left - left.mean()) ** 2).sum())
    assert found is not None
    assert found.value == pytest.approx(apart(np.arange(300)))
    assert found.interval is not None
    half = (found.interval[1] - found.interval[0]) / 2
    # to first order in 1 / N
    assert half == pytest.approx(stats.t.ppf(0.975, 299) * error, rel=0.02)


def test_examples_without_a_value_are_of_no_weight() -> None:
    kept = np.arange(40) % 4 > 0
    first, second = (Totals(np.where(kept, of, 0.0), kept.astype(float)) for of in (ONE, OTHER))
    found = clustered.difference(first, second, range(40))
    expected = stats.ttest_rel(ONE[kept], OTHER[kept]).confidence_interval(0.95)
    assert found is not None
    assert found.value == pytest.approx((ONE - OTHER)[kept].mean())
    assert found.interval == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("first", "second", "sources"),
    [(ONE, OTHER, [0] * 40), (ONE, ONE, range(40)), (ONE, ONE - 1, range(40))],
)
def test_without_a_variance_there_is_no_interval(
    first: np.ndarray, second: np.ndarray, sources: list[int]
) -> None:
    found = clustered.difference(means(first), means(second), sources)
    assert found is not None
    assert found.interval is None


def test_means_that_are_undefined_have_no_difference() -> None:
    nothing = Totals(np.zeros(40), np.zeros(40))
    assert clustered.difference(means(ONE), nothing, range(40)) is None
