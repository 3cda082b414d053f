"""Metrics of classes and numbers against scikit-learn and scipy, standard errors against brute force
and bootstrap. Metrics of texts: test_text_metrics.py."""

import math
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from graftlab.errors import DataError
from graftlab.metrics import Score
from graftlab.runfile import measures

CORRELATIONS = {
    "pearson": lambda x, y: scipy.stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: scipy.stats.spearmanr(x, y).statistic,
    "pearson_and_spearman": lambda x, y: (
        (scipy.stats.pearsonr(x, y).statistic + scipy.stats.spearmanr(x, y).statistic) / 2
    ),
}
CLASSES = {
    "accuracy": sklearn_metrics.accuracy_score,
    "binary_f1": sklearn_metrics.f1_score,
    "accuracy_and_f1": lambda x, y: (
        (sklearn_metrics.accuracy_score(x, y) + sklearn_metrics.f1_score(x, y)) / 2
    ),
    "macro_f1": lambda x, y: sklearn_metrics.f1_score(x, y, average="macro"),
    "weighted_f1": lambda x, y: sklearn_metrics.f1_score(x, y, average="weighted"),
    "matthews": sklearn_metrics.matthews_corrcoef,
}
EVERY = (*CORRELATIONS, *CLASSES)
OF_TWO = {"binary_f1", "accuracy_and_f1"}


def score(name, labels, predicted) -> Score:
    rows = [
        {"index": i, "label": label, "prediction": guess}
        for i, (label, guess) in enumerate(zip(labels, predicted, strict=True))
    ]
    return measures.measure(name).score(rows)


def drawn(name, num_examples, seed):
    """Labels and predictions that agree more often than not."""
    draws = np.random.default_rng(seed)
    if name in CORRELATIONS:  # rounded, so that some are equal
        labels = draws.normal(size=num_examples).round(1)
        return labels, (labels + draws.normal(size=num_examples)).round(1)
    num_classes = 2 if name in OF_TWO else 4
    labels = draws.integers(num_classes, size=num_examples)
    others = draws.integers(num_classes, size=num_examples)
    return labels, np.where(draws.random(num_examples) < 0.6, labels, others)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", range(5))
def test_values_are_those_of_the_reference(name, seed):
    labels, predicted = drawn(name, 200, seed)
    found = score(name, labels.tolist(), predicted.tolist())
    assert found.value == pytest.approx(
        (CORRELATIONS | CLASSES)[name](labels, predicted), abs=1e-12
    )
    assert found.reason is None
    assert measures.measure(name).module.HIGHER_IS_BETTER


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_values_are_those_of_scikit_learn_wherever_it_defines_them(rows):
    labels, predicted = zip(*rows, strict=True)
    for name in ("accuracy", "macro_f1"):
        assert score(name, labels, predicted).value == pytest.approx(
            CLASSES[name](labels, predicted)
        )
    matthews = score("matthews", labels, predicted)
    if len(set(labels)) > 1 and len(set(predicted)) > 1:
        assert matthews.value == pytest.approx(CLASSES["matthews"](labels, predicted))
    else:
        assert matthews.value is None


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"accuracy"}))
@pytest.mark.parametrize("num_examples", [7, 60])
def test_standard_error_is_the_jackknife_of_the_reference(name, num_examples):
    labels, predicted = drawn(name, num_examples, seed=1)
    reference = (CORRELATIONS | CLASSES)[name]
    left = [reference(np.delete(labels, i), np.delete(predicted, i)) for i in range(num_examples)]
    expected = math.sqrt((num_examples - 1) * np.var(left))
    assert score(name, labels, predicted).standard_error == pytest.approx(expected, rel=1e-9)


@pytest.mark.quick("accuracy", "pearson", "spearman")
@pytest.mark.parametrize("name", EVERY)
def test_standard_error_agrees_with_the_bootstrap(name):
    labels, predicted = drawn(name, 400, seed=2)
    draws = np.random.default_rng(0)
    picks = draws.integers(400, size=(400, 400))
    again = [(CORRELATIONS | CLASSES)[name](labels[pick], predicted[pick]) for pick in picks]
    # A standard deviation of 400 draws is itself uncertain by 3.5 %: allow four times that.
    assert score(name, labels, predicted).standard_error == pytest.approx(np.std(again), rel=0.15)


def test_accuracy_has_the_standard_error_of_a_share():
    # sqrt(0.8 * 0.2 / 280); a table of such figures gives 2.40 points for 277 examples
    labels = [1] * 280
    found = score("accuracy", labels, [1] * 224 + [0] * 56)
    assert found == Score(0.8, pytest.approx(0.0239046, abs=1e-7), None)


@pytest.mark.parametrize("name", EVERY)
def test_no_examples_have_no_value_and_a_reason(name):
    found = score(name, [], [])
    assert found.value is None
    assert found.standard_error is None
    assert found.reason


@pytest.mark.parametrize(
    ("name", "labels", "predicted", "reason"),
    [
        ("matthews", [0, 1, 1], [1, 1, 1], "one class"),
        ("matthews", [1, 1, 1], [0, 1, 1], "one class"),
        ("binary_f1", [0, 0, 0], [0, 0, 0], "class 1"),
        ("accuracy_and_f1", [0, 0, 0], [0, 0, 0], "class 1"),
        ("pearson", [1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "all predictions are the same"),
        ("spearman", [2.0, 2.0, 2.0], [0.1, 0.2, 0.3], "all labels are the same"),
        ("pearson_and_spearman", [1.0], [1.0], "two examples"),
        ("pearson", [1.0, 2.0, 3.0], [0.1, math.nan, math.inf], "2 of 3 predictions"),
    ],
)
def test_undefined_has_no_value_and_says_why(name, labels, predicted, reason):
    found = score(name, labels, predicted)
    assert found[:2] == (None, None)
    assert reason in found.reason


@pytest.mark.parametrize("name", ["binary_f1", "matthews", "pearson", "spearman"])
def test_an_error_that_hangs_on_one_example_is_left_out_with_a_reason(name):
    labels, predicted = ([1, 0, 0], [1, 0, 0]) if name in CLASSES else ([1.0, 2.0], [3.0, 4.0])
    found = score(name, labels, predicted)
    assert found.value == pytest.approx(1.0)
    assert found.standard_error is None
    assert "single example" in found.reason


def test_constant_predictions_have_an_f1_as_the_class_never_predicted_counts_as_zero():
    assert score("macro_f1", [0, 1], [1, 1]).value == pytest.approx(1 / 3)  # (0 + 2/3) / 2


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("label", [None, -1, math.nan])
def test_an_example_without_label_is_refused(name, label):
    with pytest.raises(DataError, match="example 1"):
        score(name, [1, label, 0], [1, 1, 0])


@pytest.mark.parametrize("name", sorted(OF_TWO))
def test_f1_of_two_classes_refuses_a_third(name):
    with pytest.raises(DataError, match="macro_f1"):
        score(name, [0, 1, 2], [0, 1, 1])


def test_many_classes_and_numpy_integers_are_counted_right():
    labels, predicted = np.array([0, 999, 999, 5]), np.array([0, 999, 5, 5])
    expected = CLASSES["macro_f1"](labels, predicted)
    assert score("macro_f1", labels, predicted).value == pytest.approx(expected)


def test_metrics_are_found_without_their_libraries():
    import subprocess

    code = (
        "import sys; from graftlab import registry;"
        "[registry.find('metrics', n) for n in registry.names('metrics')];"
        "libraries = ('torch', 'sklearn', 'scipy', 'numpy', 'rouge_score', 'sacrebleu');"
        "print([m for m in libraries if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
