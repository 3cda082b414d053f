"""Each score against an independent computation, and what must not change it."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.metrics import balanced_accuracy_score, log_loss, silhouette_score

from graftlab import registry
from graftlab.selection import examples, plug, space
from graftlab.selection.scores import Sample, Undefined, mdl

NUM_CLASSES, NUM_EXAMPLES, WIDTH, FOLDS, COMPONENTS = 3, 90, 20, 5, 6
OURS = ("fisher", "linear", "mdl", "pc_label_correlation", "plugin", "probe", "silhouette")
ONES = np.ones((1, NUM_EXAMPLES))


def make(seed=0, strength=0.6, components=COMPONENTS, **more):
    draws = np.random.default_rng(seed)
    labels = draws.permutation(np.arange(NUM_EXAMPLES) % NUM_CLASSES)
    means = draws.normal(size=(NUM_CLASSES, WIDTH))
    states = draws.normal(size=(NUM_EXAMPLES, WIDTH)) + strength * means[labels] + 2
    return of(space.unit_length(states), labels, components, **more)


def of(states, labels, components=COMPONENTS, **more):
    folds = examples.folds(labels, FOLDS, 0)
    more = {"mapped_components": COMPONENTS, "top_components": 2, **more}
    return Sample(states, labels, folds, components, plugged=(states,) * FOLDS, **more)


def score(name, sample, weights=ONES):
    return registry.find("scores", name).score(sample, weights)


def reduced(fitted, asked, components):
    """Return sklearn's components of both, scaled so that the variances of the fitted add up to 1."""
    if components is None:
        fitted, asked = fitted - fitted.mean(axis=0), asked - fitted.mean(axis=0)
    else:
        pca = PCA(components, svd_solver="full").fit(fitted)
        fitted, asked = pca.transform(fitted), pca.transform(asked)
    scale = np.sqrt(fitted.var(axis=0).sum())
    return fitted / scale, asked / scale


@pytest.mark.parametrize("components", [COMPONENTS, None])
@pytest.mark.parametrize("name", ["probe", "plugin", "linear"])
def test_the_probe_is_sklearns_adjusted_balanced_accuracy(name, components):
    """`linear` reads all dimensions whatever the space, and its penalty is chosen."""
    sample = make(components=components)
    probe = LogisticRegression()
    if name == "linear":
        components, probe = None, RidgeClassifierCV((0.01, 0.1, 1, 10, 100))
    predicted = np.empty(NUM_EXAMPLES)
    for fold in range(FOLDS):
        held = sample.folds == fold
        fitted, asked = reduced(sample.states[~held], sample.states[held], components)
        predicted[held] = probe.fit(fitted, sample.labels[~held]).predict(asked)
    expected = balanced_accuracy_score(sample.labels, predicted, adjusted=True)
    assert 0.2 < expected < 1
    assert score(name, sample)[0] == pytest.approx(expected)


def test_fishers_ratio_is_its_definition():
    sample = make(components=None)
    groups = [sample.states[sample.labels == c] for c in range(NUM_CLASSES)]
    between = np.mean([np.sum((a.mean(0) - b.mean(0)) ** 2) for a, b in combinations(groups, 2)])
    within = sum(np.mean(np.sum((g - g.mean(0)) ** 2, axis=1)) for g in groups)
    assert score("fisher", sample)[0] == pytest.approx(between / within)


@pytest.mark.parametrize("components", [COMPONENTS, None])
def test_the_silhouette_is_sklearns(components):
    sample = make(components=components)
    fitted = sample.states[sample.folds != 0]
    _, states = reduced(fitted, sample.states, components)
    assert score("silhouette", sample)[0] == pytest.approx(silhouette_score(states, sample.labels))


def test_the_correlation_is_numpys_of_sklearns_components():
    sample = make()
    _, states = reduced(sample.states[sample.folds != 0], sample.states, COMPONENTS)
    best = [
        max(abs(np.corrcoef(states[:, j], sample.labels == c)[0, 1]) for c in range(NUM_CLASSES))
        for j in range(COMPONENTS)
    ]
    assert score("pc_label_correlation", sample)[0] == pytest.approx(np.mean(sorted(best)[-2:]))


def test_the_description_length_is_the_sum_of_sklearns_log_losses():
    sample = make()
    order = mdl.in_turns(sample.labels, 0)
    ends = [9, 18, 27, 36, 45, 54, 63, 72, 81, 90]
    nats = 9 * np.log(NUM_CLASSES)
    for start, end in pairwise(ends):
        known, coded = order[:start], order[start:end]
        fitted, asked = reduced(sample.states[known], sample.states[coded], COMPONENTS)
        found = LogisticRegression().fit(fitted, sample.labels[known]).predict_proba(asked)
        nats += log_loss(sample.labels[coded], found, normalize=False, labels=range(NUM_CLASSES))
    # class by class, so that rare ones count as much: the same here, where all have 30
    assert score("mdl", sample)[0] == pytest.approx(1 - nats / (NUM_EXAMPLES * np.log(NUM_CLASSES)))


@pytest.mark.parametrize("name", ["fisher", "pc_label_correlation"])
def test_a_bootstrap_row_is_the_score_of_the_examples_drawn(name):
    sample = make()
    weights = examples.resamples(sample.labels, 3, 0)
    assert (weights[0] == 1).all()
    drawn = np.repeat(np.arange(NUM_EXAMPLES), weights[2].astype(int))
    assert (np.bincount(sample.labels[drawn]) == NUM_EXAMPLES // NUM_CLASSES).all()
    again = of(sample.states, sample.labels)
    projected, mapped = sample.projected[drawn], sample.mapped[drawn]  # as fitted before
    vars(again).update(labels=sample.labels[drawn], projected=projected, mapped=mapped)
    assert score(name, sample, weights)[2] == pytest.approx(score(name, again)[0])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_layer_without_a_score_says_why(name, value):
    labels = np.arange(NUM_EXAMPLES) % NUM_CLASSES
    with pytest.raises(Undefined, match="the same" if value == 1 else "not finite"):
        score(name, of(np.full((NUM_EXAMPLES, WIDTH), value), labels))


def test_plugin_without_an_encoder_and_a_code_without_examples_are_undefined():
    few = np.arange(6) % 3
    sample = Sample(np.random.default_rng(0).normal(size=(6, 4)), few, few * 0, 2)
    with pytest.raises(Undefined, match="encoder"):
        score("plugin", sample)
    with pytest.raises(Undefined, match="too few"):
        score("mdl", sample)


def test_a_random_projection_is_drawn_as_torch_draws_a_linear_layer():
    import torch

    drawn = plug.random(400, 300, 0)
    weight = torch.nn.Linear(400, 300, bias=False).weight
    assert np.abs(drawn).max() <= 1 / 20
    assert drawn.std() == pytest.approx(float(weight.detach().std()), rel=0.02)
    assert (drawn == plug.random(400, 300, 0)).all()


def test_a_fitted_projection_is_ridge_regression():
    from sklearn.linear_model import Ridge

    draws = np.random.default_rng(0)
    encoded, inputs = draws.normal(size=(30, 5)), draws.normal(size=(30, 7))
    penalty = plug.RIDGE * np.sum(encoded**2) / 5
    expected = Ridge(alpha=penalty, fit_intercept=False).fit(encoded, inputs).coef_.T
    np.testing.assert_allclose(plug.fitted(encoded, inputs), expected, rtol=1e-6)
