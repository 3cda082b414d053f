"""How scores are mixed into a choice, how sure it is, and which examples it rests on."""

import numpy as np
import pytest
from faults import fault
from pydantic import ValidationError

from graftlab.errors import ConfigError, DataError
from graftlab.selection import Config, examples
from graftlab.selection.choice import choose, interval, normalise, statement, tells_apart

MIX = {"probe": 0.4, "fisher": 0.3, "silhouette": 0.3}
SOURCE = {
    "weights": MIX,
    "normalise": "none",
    "rule": "best",
    "depth_bias": 0.3,
    "depth_bias_form": "multiplicative",
}


def scores(**rows):
    return {name: np.atleast_2d(np.array(row, dtype=float)) for name, row in rows.items()}


THREE = scores(probe=[0.8, 0.9, 0.7], fisher=[0.2, 0.1, 0.3], silhouette=[0.0, 0.1, -0.1])


def test_without_normalising_the_mix_is_the_sources():
    found = choose([0, 1, 2], THREE, 3, Config(**SOURCE))
    mixed = (0.4 * 0.9 + 0.3 * 0.1 + 0.3 * 0.1) / (0.4 + 0.3 + 0.3)
    assert found.combined[0, 1] == pytest.approx(mixed * (1 - 0.3 * 1 / 2))
    assert (found.layer, found.unbiased) == (0, 1)  # the bias has moved it to the front
    assert found.alone == {"probe": 1, "fisher": 2, "silhouette": 1}


def test_the_sources_bias_raises_a_score_below_zero_and_ours_does_not():
    below = scores(silhouette=[-0.2, -0.2])
    one = Config(**{**SOURCE, "weights": {"silhouette": 1.0}})
    assert choose([0, 1], below, 2, one).layer == 1
    additive = one.model_copy(update={"depth_bias_form": "additive"})
    assert choose([0, 1], below, 2, additive).layer == 0


def test_depth_is_counted_over_the_whole_model():
    config = Config(weights={"probe": 2.0}, depth_bias=0.3)
    found = choose([3, 5], scores(probe=[0.5, 0.5]), 11, config)
    np.testing.assert_allclose(found.combined[0], [-0.3 * 0.3, -0.3 * 0.5])


@pytest.mark.parametrize(
    ("how", "expected"),
    [("minmax", [0, 1, 0.25, 0.25]), ("rank", [0, 1, 0.5, 0.5]), ("none", [1, 5, 2, 2])],
)
def test_scores_are_brought_to_0_to_1_over_the_layers(how, expected):
    np.testing.assert_allclose(normalise(np.array([[1.0, 5.0, 2.0, 2.0]]), how), [expected])


def test_scores_that_are_all_equal_choose_nothing():
    assert (normalise(np.full((1, 3), 0.4), "minmax") == 0).all()


def noisy(values, error, count=200):
    """Return scores with bootstrap samples around them of this standard error, layers apart."""
    draws = np.random.default_rng(0)
    return np.vstack([values, np.array(values) + error * draws.normal(size=(count, len(values)))])


@pytest.mark.parametrize("how", ["minmax", "rank"])
@pytest.mark.parametrize(("error", "layer", "silent"), [(0.01, 2, ()), (0.2, 0, ("fisher",))])
def test_a_score_that_differs_over_the_layers_by_its_error_has_no_vote(how, error, layer, silent):
    """Of three equal layers 95 % differ by less than 3.3 errors of one (studentized range): 0.033 or 0.66."""
    rows = {"probe": noisy([0.9, 0.5, 0.4], 0.01), "fisher": noisy([0.1, 0.1, 0.2], error)}
    weights = {"probe": 0.4, "fisher": 0.6}
    config = Config(weights=weights, rule="best", normalise=how, depth_bias=0.0)
    found = choose([0, 1, 2], rows, 3, config)
    assert (found.layer, found.silent) == (layer, silent)


@pytest.mark.parametrize("num_layers", [4, 12, 32])
def test_a_score_that_is_chance_alone_gets_a_vote_in_one_case_of_twenty(num_layers):
    draws = np.random.default_rng(0)
    chance = (noisy(draws.normal(size=num_layers), 1.0) for _ in range(400))
    found = sum(tells_apart(rows) for rows in chance)
    assert abs(found / 400 - 0.05) < 0.033  # three standard errors of such a share


def test_the_scores_that_vote_share_the_weight_of_those_that_do_not():
    """So that the depth bias weighs as much against them as against all."""
    rows = {"probe": noisy([0.9, 0.5, 0.4], 0.01), "fisher": noisy([0.1, 0.1, 0.2], 0.5)}
    config = Config(weights={"probe": 0.4, "fisher": 0.6}, rule="best", depth_bias=0.3)
    found = choose([0, 1, 2], rows, 3, config)
    assert found.silent == ("fisher",)
    np.testing.assert_allclose(found.combined[0], [1.0, 0.2 - 0.15, 0.0 - 0.3], atol=1e-12)


@pytest.mark.parametrize(("error", "layer"), [(0.005, 0), (0.02, 1), (0.5, 2)])
@pytest.mark.parametrize("how", ["minmax", "none"])
def test_the_latest_layer_within_an_error_of_the_best_is_taken_where_that_is_the_rule(
    how, error, layer
):
    """Layers 1 and 2 are 0.02 and 0.4 behind; a difference has sqrt(2) times the error of one score."""
    rows = {"linear": noisy([0.9, 0.88, 0.5], error)}
    config = Config(weights={"linear": 1.0}, rule="latest", normalise=how, depth_bias=0.0)
    found = choose([0, 1, 2], rows, 3, config)
    assert found.layer == layer
    assert found.best in (0, None)
    if not found.silent:
        assert choose([0, 1, 2], rows, 3, config.model_copy(update={"rule": "best"})).layer == 0


def test_where_no_score_has_a_vote_it_is_the_last_layer_and_nothing_is_sure():
    rows = {"probe": noisy([0.5, 0.52, 0.51, np.nan], 0.1)}
    config = Config(weights={"probe": 1.0})
    found = choose([0, 2, 4, 6], rows, 7, config)
    assert (found.layer, found.unbiased, found.silent, found.wins) == (4, 4, ("probe",), {})
    assert "likely" not in statement(found, 7, 4, config)


def test_without_bootstrap_samples_the_latest_near_the_best_is_the_best():
    config = Config(weights={"linear": 1.0}, rule="latest", depth_bias=0.0)
    assert choose([0, 1, 2], scores(linear=[0.9, 0.8999, 0.1]), 3, config).layer == 0


def test_bootstrap_samples_are_scaled_by_the_scores_themselves():
    """Each by its own range, the best of every sample would be exactly 1, and without an error."""
    rows = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]])
    np.testing.assert_allclose(normalise(rows, "minmax"), [[0, 0.5, 1], [0, 1, 2]])


def test_unscaled_scores_all_vote_as_in_the_source_and_without_resamples_too():
    rows = {"fisher": noisy([0.1, 0.1, 0.2], 0.5)}
    unscaled = Config(weights={"fisher": 1.0}, normalise="none", depth_bias=0.0)
    assert choose([0, 1, 2], rows, 3, unscaled).silent == ()
    alone = {"fisher": rows["fisher"][:1]}
    stretched = unscaled.model_copy(update={"normalise": "minmax"})
    assert choose([0, 1, 2], alone, 3, stretched).silent == ()
    assert choose([0, 1, 2], rows, 3, stretched).silent == ("fisher",)


def test_shifting_and_stretching_a_score_does_not_change_the_choice():
    config = Config(weights=MIX, depth_bias=0.0)
    moved = {name: 100 * row - 7 for name, row in THREE.items()}
    for how in ("minmax", "rank"):
        same = config.model_copy(update={"normalise": how})
        ours, theirs = choose([0, 1, 2], THREE, 3, same), choose([0, 1, 2], moved, 3, same)
        np.testing.assert_allclose(ours.combined, theirs.combined)


def test_a_layer_where_a_counted_score_is_undefined_is_left_out_and_told():
    broken = scores(probe=[0.8, np.nan, 0.7], fisher=[1, 9, np.nan], silhouette=[0, 0, 0])
    config = Config(weights={"probe": 1.0})
    found = choose([0, 1, 2], broken, 3, config)
    assert (found.layer, found.left_out) == (0, (1,))
    assert np.isnan(found.combined[0, 1])
    assert "1 of 3" in statement(found, 3, 3, config)
    with pytest.raises(DataError, check=fault("undefined")):
        choose([0], scores(probe=[np.nan]), 3, config)


def test_wins_are_the_shares_of_resamples_in_which_a_layer_is_best():
    rows = scores(probe=[[0.9, 0.1], [0.9, 0.2], [0.3, 0.8], [0.6, 0.5], [0.7, 0.5]])
    config = Config(weights={"probe": 1.0}, rule="best", depth_bias=0.0, normalise="none")
    found = choose([0, 4], rows, 5, config)
    assert found.wins == {0: 0.75, 4: 0.25}
    said = statement(found, 5, 2, config)
    assert "Layer 0 of" in said
    assert "layer 4 in 25%" in said


@pytest.mark.parametrize(
    ("wins", "word"), [([1.0], "sure"), ([0.6, 0.4], "likely"), ([0.4, 0.35, 0.25], "open")]
)
def test_words_for_how_sure_a_choice_is(wins, word):
    found = choose([0, 1, 2], THREE, 3, Config(**SOURCE))
    found = found._replace(wins=dict(enumerate(wins)))
    assert f"the choice is {word}" in statement(found, 3, 3, Config(**SOURCE))


def test_the_interval_is_around_the_score_as_wide_as_its_standard_error_says():
    draws = np.random.default_rng(0).normal(0.7, 0.1, 5000)
    low, high = interval(np.concatenate([[0.5], draws]))
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.96 * 0.1, rel=0.03)
    assert interval(np.array([0.5])) is None


def test_as_many_examples_of_each_class_as_of_any_other():
    labels = np.array([0] * 50 + [1] * 50 + [2] * 6)
    drawn = examples.draw(labels, ("a", "b", "c"), Config(samples=40))
    assert np.bincount(labels[drawn]).tolist() == [17, 17, 6]
    assert (np.diff(drawn) > 0).all()
    assert (drawn == examples.draw(labels, ("a", "b", "c"), Config(samples=40))).all()
    other = examples.draw(labels, ("a", "b", "c"), Config(samples=40, seed=1))
    assert (drawn != other).any()


@pytest.mark.parametrize(
    ("labels", "config", "error", "message"),
    [
        ([0] * 20, {}, DataError, "all 20.*'a'"),
        ([0] * 20 + [1] * 20, {"samples": 3}, ConfigError, "10 are needed at least"),
        ([0] * 20 + [1] * 4, {}, DataError, r"'b' \(4\)"),
    ],
)
def test_examples_that_cannot_tell_layers_apart_are_refused(labels, config, error, message):
    with pytest.raises(error, match=message):
        examples.draw(np.array(labels), ("a", "b"), Config(**config))


def test_folds_and_resamples_keep_the_classes():
    labels = np.array([0] * 12 + [1] * 7)
    folds = examples.folds(labels, 3, 0)
    assert np.bincount(folds[labels == 0]).tolist() == [4, 4, 4]
    assert sorted(np.bincount(folds[labels == 1])) == [2, 2, 3]
    weights = examples.resamples(labels, 200, 0)
    assert (weights[:, labels == 0].sum(axis=1) == 12).all()
    assert (weights[:, labels == 1].sum(axis=1) == 7).all()
    # a bootstrap count is binomial(n, 1/n): mean 1, variance 1 - 1/n
    assert weights[1:, 0].mean() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": {"prob": 1.0}}, "'probe'"),
        ({"weights": {"probe": 0.0}}, "one score at least"),
        ({"weights": {"probe": -1.0}}, "0 or more"),
        ({"layers": (-1,)}, "count from 0"),
        ({"top_components": 20}, "more than components"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Config(**given)
