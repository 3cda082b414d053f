"""Rank correlation, permutation test and regret, against scipy and by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr

from graftlab.selection.agreement import Regret, agreement, regret, statement


@pytest.mark.quick("?-4", "0-6")
@pytest.mark.parametrize("count", [4, 6, 7])
@pytest.mark.parametrize("seed", range(4))
def test_the_correlation_and_its_exact_p_value_are_scipys(count, seed):
    draws = np.random.default_rng(seed)
    scores, results = draws.normal(size=count), draws.integers(0, 5, count).astype(float)
    found = agreement(scores.tolist(), results.tolist(), 0)
    expected = permutation_test(
        (scores,), lambda x: spearmanr(x, results).statistic, permutation_type="pairings",
        alternative="greater", n_resamples=np.inf,
    )  # fmt: skip
    assert found.correlation == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_with_many_layers_orders_are_drawn():
    draws = np.random.default_rng(1)
    scores = draws.normal(size=20)
    results = scores + draws.normal(size=20)
    found = agreement(scores.tolist(), results.tolist(), 0)
    expected = spearmanr(scores, results, alternative="greater")
    assert found.correlation == pytest.approx(expected.statistic)
    # 20 000 draws: a standard error of 0.0005 at p = 0.005
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.003)


def test_few_layers_can_show_little():
    perfect = agreement([1, 2, 3], [4, 5, 6], 0)
    assert perfect.p_value == perfect.smallest_p == pytest.approx(1 / 6)
    assert perfect.needed is None
    said = statement(perfect, Regret(0, 0, 0), "accuracy", None)
    assert "is 0.17" in said


def test_the_least_correlation_beyond_chance_is_the_tables():
    """Critical values of Spearman's rho, one-sided 0.05: 0.829 for 6, 0.714 for 7 (Zar, 1972)."""
    six = agreement(list(range(6)), [1, 0, 3, 2, 5, 4], 0)
    assert six.needed == pytest.approx(0.829, abs=0.001)
    assert six.smallest_p == pytest.approx(1 / 720)
    seven = agreement(list(range(7)), list(range(7)), 0)
    assert seven.needed == pytest.approx(0.714, abs=0.001)


@pytest.mark.parametrize(
    ("scores", "results"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, None], [1, 2, 3])]
)
def test_nothing_to_rank_is_no_correlation(scores, results):
    assert agreement(scores, results, 0).correlation is None
    assert "no rank correlation" in statement(
        agreement(scores, results, 0), Regret(0.1, 0, 0.2), "accuracy", 0.02
    )


def test_under_no_agreement_p_values_are_uniform():
    orders = list(itertools.permutations(range(5)))
    values = sorted(agreement(list(range(5)), list(order), 0).p_value for order in orders)
    # the share of orders with a p-value of p or less is p: a permutation test is exact
    assert all(np.mean([v <= p + 1e-12 for v in values]) == pytest.approx(p) for p in set(values))


def test_regret_is_what_the_best_has_more():
    results = {0: 0.7, 2: 0.9, 5: 0.8}
    assert regret(results, 0, 5, True) == pytest.approx((0.2, 0.1, 0.1))
    losses = {layer: 1 - value for layer, value in results.items()}
    assert regret(losses, 0, 5, False) == pytest.approx((0.2, 0.1, 0.1))
    said = statement(
        agreement([1, 2, 3], [1, 2, 3], 0), regret(results, 0, 5, True), "accuracy", 0.02
    )
    assert "last 0.1000" in said
    assert "of 0.0200" in said
