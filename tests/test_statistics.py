"""Statistics against those of other libraries, of R and of papers."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from graftlab.statistics import (
    aggregates,
    components,
    dominance,
    mcnemar,
    multiplicity,
    permutation,
    power,
    ranks,
    seeds,
    units,
)
from graftlab.statistics.estimates import Estimate

# Student's sleep data (1908), as in R's `sleep`: hours gained by ten patients with two drugs
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Darwin's maize: crossed less self-fertilized in 1/8 inch, of which Fisher (1935) counts 1726 of 2^15
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


@pytest.fixture
def draws():
    return np.random.default_rng(0)


# Intervals over seeds


def test_paired_seeds_are_judged_as_r_judges_students_sleep():
    found = seeds.paired(FIRST, SECOND)
    assert found.value == pytest.approx(-1.58)
    assert found.interval() == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert found.degrees_of_freedom == 9


def test_unpaired_seeds_are_judged_as_r_judges_students_sleep():
    """`t.test(extra ~ group, sleep, var.equal = TRUE)`: the spreads are alike."""
    found = seeds.unpaired(FIRST, SECOND)
    assert found.interval() == pytest.approx((-3.363874, 0.203874), abs=5e-7)
    assert found.p == pytest.approx(0.07919, abs=5e-6)
    assert found.degrees_of_freedom == 18


@pytest.mark.parametrize(("scale", "cut"), [(9, 10), (1, 7), (1 / 9, 10)])
def test_unpaired_seeds_of_unlike_spreads_or_numbers_are_judged_by_welchs_t(scale, cut):
    second = [scale * value for value in SECOND[:cut]]
    found, wanted = seeds.unpaired(FIRST, second), stats.ttest_ind(FIRST, second, equal_var=False)
    assert found.interval() == pytest.approx(tuple(wanted.confidence_interval()))
    assert found.degrees_of_freedom == pytest.approx(wanted.df)


@pytest.mark.parametrize("judge", [seeds.paired, seeds.unpaired])
def test_seeds_that_resample_the_same_rows_are_judged_by_nadeaus_and_bengios_t(judge):
    """Equation 10 of Nadeau & Bengio (2003): a fifth of the rows is scored, four fifths are trained on."""
    found, alone = judge(FIRST, SECOND, 0.2 / 0.8), judge(FIRST, SECOND)
    wider = math.sqrt((1 / 10 + 1 / 4) * 10)
    assert found.standard_error == pytest.approx(wider * alone.standard_error)
    statistic = alone.value / alone.standard_error / wider
    assert found.p == pytest.approx(2 * stats.t.sf(abs(statistic), alone.degrees_of_freedom))


def test_more_seeds_that_resample_the_same_rows_help_only_so_far():
    found = power.with_seeds(Estimate(0.0, 4 * (1 / 5 + 1 / 4), 4, overlap=1 / 4), 5, 20)
    assert (found.seed_variance, found.seed_freedom) == (pytest.approx(4 * (1 / 20 + 1 / 4)), 19)
    assert power.seeds_wanted(1.0, seeds.paired(FIRST, SECOND, 0.25), 10) is None


def test_another_level_is_scipys_interval():
    ends = stats.ttest_rel(FIRST, SECOND).confidence_interval(0.8)
    assert seeds.paired(FIRST, SECOND).interval(0.8) == pytest.approx(tuple(ends))


@pytest.mark.parametrize("judge", [seeds.paired, seeds.unpaired])
def test_seeds_that_all_say_the_same_have_no_interval_and_no_p(judge):
    found = judge([0.5, 0.5, 0.5], [0.4, 0.4, 0.4])
    assert (found.interval(), found.p, power.smallest_visible(found)) == (None, None, None)


@pytest.mark.parametrize(("one", "two"), [([0.5], [0.4]), ([0.5, 0.6], [0.4, 0.5, 0.6])])
def test_one_pair_or_pairs_that_do_not_match_are_refused(one, two):
    with pytest.raises(ValueError, match="pairs"):
        seeds.paired(one, two)


# Seeds and examples


def test_mean_squares_are_those_of_an_analysis_of_variance(draws):
    pandas, smf = pytest.importorskip("pandas"), pytest.importorskip("statsmodels.formula.api")
    from statsmodels.stats.anova import anova_lm

    score_SN = draws.normal(size=(4, 7)) + draws.normal(size=(4, 1)) + draws.normal(size=7)
    rows = [(s, n, score_SN[s, n]) for s, n in itertools.product(range(4), range(7))]
    frame = pandas.DataFrame(rows, columns=["seed", "example", "score"])
    table = anova_lm(smf.ols("score ~ C(seed) + C(example)", frame).fit())
    assert components.mean_squares(score_SN) == pytest.approx(tuple(table["mean_sq"]))


def test_without_examples_that_differ_it_is_the_t_of_seeds(draws):
    score_2SN = draws.normal(size=(2, 5, 1)) + np.zeros((2, 5, 30))
    for ours, theirs in ((components.paired, seeds.paired), (components.unpaired, seeds.unpaired)):
        found, wanted = ours(*score_2SN), theirs(*score_2SN[:, :, 0])
        assert found.interval() == pytest.approx(wanted.interval())
        assert found.degrees_of_freedom == pytest.approx(wanted.degrees_of_freedom)


def test_with_seeds_that_all_say_the_same_it_is_the_t_of_examples(draws):
    score_2SN = draws.normal(size=(2, 1, 30)) + np.zeros((2, 5, 30))
    wanted = stats.ttest_rel(*score_2SN[:, 0]).confidence_interval()
    for judge in (components.paired, components.unpaired):
        found = judge(*score_2SN)
        assert found.interval() == pytest.approx(tuple(wanted))
        assert found.degrees_of_freedom == pytest.approx(29)
    assert components.of_examples(*score_2SN[:, 0]).interval() == pytest.approx(tuple(wanted))


def test_the_examples_part_is_that_of_cornfield_and_tukey(draws):
    gap_SN = draws.normal(size=(6, 1)) / 5 + 3 * draws.normal(size=40) + draws.normal(size=(6, 40))
    found, squares = (
        components.paired(gap_SN, np.zeros((6, 40))),
        components.mean_squares(gap_SN),
    )
    variance = (squares.seed + squares.example - squares.rest) / gap_SN.size
    assert found.standard_error**2 == pytest.approx(variance)


def test_degrees_of_freedom_of_two_variances_are_satterthwaites():
    """Of two samples of unequal size they are Welch's, which scipy computes."""
    one, two = FIRST, [9 * value for value in SECOND[:4]]
    parts = [np.var(own, ddof=1) / len(own) for own in (one, two)]
    found = Estimate(0.0, parts[0], len(one) - 1, parts[1], len(two) - 1)
    wanted = stats.ttest_ind(one, two, equal_var=False).df
    assert found.degrees_of_freedom == pytest.approx(wanted)


# Units


def test_units_of_a_mean_are_the_means_of_groups_of_one_size(draws):
    values = draws.normal(size=60)
    parts = units.groups(60, seed=1, count=12)
    found = units.pseudo_values(lambda kept: float(values[list(kept)].mean()), parts)
    assert found == pytest.approx([values[part].mean() for part in parts])


def test_units_of_sources_have_the_clustered_standard_error_of_statsmodels(draws):
    api = pytest.importorskip("statsmodels.api")
    source = np.repeat(np.arange(20), draws.integers(1, 6, 20))
    values = draws.normal(size=len(source)) + draws.normal(size=20)[source]
    parts = units.groups(len(source), seed=1, sources=source.tolist())
    found = units.pseudo_values(lambda kept: float(values[list(kept)].mean()), parts)
    assert sorted(map(len, parts)) == sorted(np.bincount(source))
    fit = api.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": source})
    ours = components.of_examples(found, np.zeros(len(found)))
    assert ours.value == pytest.approx(fit.params[0])
    # statsmodels multiplies by (N - 1) / (N - 1) of one parameter and by G / (G - 1), as we do
    assert ours.standard_error == pytest.approx(fit.bse[0])


def test_units_of_a_ratio_have_the_standard_error_of_the_jackknife(draws):
    """As Efron and Tibshirani write it: (G - 1) / G times the sum of squares of what is left out."""
    top, below = draws.uniform(1, 2, 40), draws.uniform(1, 2, 40)
    score = lambda kept: float(top[list(kept)].sum() / below[list(kept)].sum())  # noqa: E731
    found = units.pseudo_values(score, units.groups(40, seed=1))
    left = np.array([score([n for n in range(40) if n != out]) for out in range(40)])
    wanted = math.sqrt(39 / 40 * ((left - left.mean()) ** 2).sum())
    assert components.of_examples(found, np.zeros(40)).standard_error == pytest.approx(wanted)


def test_every_example_stands_in_one_group_and_sources_stay_whole():
    source = [number // 3 for number in range(200)]
    parts = units.groups(200, seed=3, sources=source, count=50)
    assert sorted(np.concatenate(parts)) == list(range(200))
    held = [{source[n] for n in part} for part in parts]
    assert sum(map(len, held)) == len({*source})


def test_a_score_that_is_undefined_without_a_group_has_no_units():
    score = lambda kept: None if 3 not in kept else 0.5  # noqa: E731
    assert units.pseudo_values(score, units.groups(10, seed=0)) is None


# Other tests


def test_darwins_maize_has_fishers_p_value():
    found = permutation.paired(DARWIN, [0] * len(DARWIN))
    assert found.p == pytest.approx(1726 / 2**15)


def test_five_pairs_that_all_point_one_way_have_the_smallest_p_there_is():
    found = permutation.paired([5, 6, 7, 8, 9], [1, 1, 1, 1, 1])
    assert found.p == found.smallest == 2 / 32


@pytest.mark.parametrize(
    ("ours", "kind"), [(permutation.paired, "samples"), (permutation.unpaired, "independent")]
)
def test_exchanges_are_those_of_scipy(ours, kind, draws):
    one, two = draws.normal(size=6).round(1), draws.normal(0.5, size=6).round(1)
    wanted = stats.permutation_test(
        (one, two),
        lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis),
        permutation_type=kind,
        n_resamples=np.inf,
        vectorized=True,
    )
    assert ours(one, two).p == pytest.approx(wanted.pvalue)


def test_unpaired_exchanges_know_their_smallest_p():
    found = permutation.unpaired([1, 2, 3], [7, 8, 9])
    assert found.p == pytest.approx(found.smallest) == pytest.approx(2 / 20)
    assert permutation.unpaired([1, 2], [7, 8, 9]).smallest == pytest.approx(1 / 10)


@pytest.mark.parametrize("judge", [permutation.paired, permutation.unpaired])
def test_many_seeds_are_exchanged_at_random_and_never_reach_p_zero(judge, draws):
    one = draws.normal(size=30)
    found = judge(one + 9, one)
    assert found.p == pytest.approx(found.smallest)


def test_mcnemar_is_that_of_statsmodels(draws):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    one, two = draws.random(200) < 0.8, draws.random(200) < 0.7
    table = [[sum(one & two), sum(one & ~two)], [sum(~one & two), sum(~one & ~two)]]
    found = mcnemar.mcnemar(one.tolist(), two.tolist())
    assert (found.first_alone, found.second_alone) == (table[0][1], table[1][0])
    assert found.p == pytest.approx(tables.mcnemar(table, exact=True).pvalue)
    assert mcnemar.mcnemar([True, False], [True, False]).p == 1.0


@pytest.mark.parametrize(
    ("ours", "theirs"), [(multiplicity.holm, "holm"), (multiplicity.benjamini_hochberg, "fdr_bh")]
)
def test_corrections_are_those_of_statsmodels(ours, theirs, draws):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = [*draws.random(11) ** 3, 0.02, 0.02]
    wanted = multitest.multipletests(p_values, method=theirs)[1]
    assert ours(p_values) == pytest.approx(list(wanted))


def test_corrections_of_a_few_are_those_of_their_definitions():
    assert multiplicity.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert multiplicity.benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert multiplicity.holm([]) == multiplicity.benjamini_hochberg([]) == []


# Order, aggregates, ranks


@pytest.mark.parametrize("sizes", [(5, 5), (4, 7)])
def test_the_violation_is_the_integral_over_the_quantiles(sizes, draws):
    one, two = draws.normal(size=sizes[0]), draws.normal(size=sizes[1])
    at = (np.arange(280_000) + 0.5) / 280_000  # no edge of any of the steps
    gap = np.subtract(*(np.quantile(own, at, method="inverted_cdf") for own in (one, two)))
    wanted = (gap[gap < 0] ** 2).sum() / (gap**2).sum()
    assert float(dominance.violation(one, two)) == pytest.approx(wanted, rel=1e-6)


def test_scores_that_are_always_higher_dominate_and_equal_ones_are_half_way():
    above = dominance.almost_stochastic_order([3, 4, 5], [1, 2, 2.5])
    assert (above.ratio, above.epsilon_min) == (0.0, 0.0)
    assert dominance.almost_stochastic_order([1, 2, 2.5], [3, 4, 5]).epsilon_min == 1.0
    assert dominance.almost_stochastic_order([1, 1, 1], [1, 1, 1]).ratio == 0.5


def test_the_two_directions_share_the_distance_and_confidence_raises_the_bound(draws):
    one, two = draws.normal(size=8), draws.normal(0.3, size=8)
    ratios = [dominance.almost_stochastic_order(a, b).ratio for a, b in ((one, two), (two, one))]
    assert sum(ratios) == pytest.approx(1)
    bounds = [
        dominance.almost_stochastic_order(one, two, level).epsilon_min
        for level in (0.5, 0.95, 0.999)
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(ratios[0])  # z is 0 at one half


def test_the_probability_of_improvement_is_mann_and_whitneys(draws):
    one, two = draws.integers(0, 5, 9), draws.integers(0, 5, 7)
    wanted = stats.mannwhitneyu(one, two).statistic / (9 * 7)
    assert aggregates.probability_of_improvement(one, two) == pytest.approx(wanted)


def test_the_interquartile_mean_leaves_a_quarter_out_at_either_end():
    assert aggregates.interquartile_mean([90, 1, 2, 3, 4, 5, 6, -80]) == pytest.approx(3.5)


def test_a_run_that_fell_far_behind_is_collapsed_and_a_little_spread_is_not():
    assert aggregates.collapsed([0.90, 0.91, 0.45, 0.905, 0.91]) == [2]
    assert aggregates.collapsed([0.90, 0.91, 0.87, 0.905, 0.91]) == []
    assert aggregates.collapsed([1.1, 1.0, 9.0, 1.05], higher=False) == [2]
    assert aggregates.collapsed([0.9, 0.1]) == []


def test_methods_that_cannot_be_told_apart_share_their_ranks():
    found = ranks.ranks("abcd", [("a", "c"), ("a", "d"), ("b", "d")])
    assert found == {"a": (1, 2), "b": (1, 3), "c": (2, 4), "d": (3, 4)}
    assert set(ranks.ranks("abc", []).values()) == {(1, 3)}


# Power


def test_power_is_that_of_rs_power_t_test():
    """`power.t.test(n = 20, delta = 1, sd = 1)` in R's own examples: 0.8689528, of the upper tail alone."""
    both = power.power(1.0, math.sqrt(2 / 20), 38)
    assert both == pytest.approx(0.8689528, abs=5e-7)  # the lower tail is 2e-7


def test_the_number_of_seeds_is_that_of_rs_power_t_test():
    """`power.t.test(power = .90, delta = 1)`: n = 22.02110, so 23."""
    twenty = Estimate(0.0, 2 / 20, 38)
    assert power.seeds_wanted(1.0, twenty, 20, wanted=0.9) == 23


def test_what_is_far_beyond_chance_is_found_always_and_soon():
    for count in (2, 5):
        assert power.seeds_wanted(1e6, Estimate(1e6, 0.01, count - 1), count) == 2
    edge = float(stats.t.ppf(0.975, 3))
    assert power.power(power.SURE * edge, 1.0, 3) == pytest.approx(1.0, abs=1e-12)


def test_what_is_visible_is_found_four_times_in_five(draws):
    power_of = pytest.importorskip("statsmodels.stats.power").TTestPower()
    found = power.smallest_visible(Estimate(0.0, 2.0**2 / 5, 4))
    wanted = power_of.solve_power(nobs=5, alpha=0.05, power=0.8)
    assert found == pytest.approx(2.0 * wanted, rel=1e-4)


def test_no_number_of_seeds_is_enough_where_the_examples_leave_too_much_open():
    found = Estimate(0.1, 0.01, 4, example_variance=0.01, example_freedom=49)
    assert power.seeds_wanted(0.1, found, 5) is None
    assert power.seeds_wanted(0.5, found, 5) is not None
