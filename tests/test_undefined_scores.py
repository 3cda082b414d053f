"""A score that has no value, or no standard error, says why; and what was left out is counted."""

import warnings

import numpy as np
import pytest

from graftlab.errors import DataError
from graftlab.metrics import Score
from graftlab.runfile import measures


def score(name, rows) -> Score:
    rows = [{"index": 7 + i, **row} for i, row in enumerate(rows)]
    return measures.measure(name).score(rows)


def text(written, gold):
    return {"label": gold, "prediction": written}


def tokens(loss, count, right=0):
    return {"label": None, "prediction": None, "loss": loss, "count": count, "correct": right}


GONE = {**tokens(None, 0), "label": "gone"}
EMPTY = text("x", "")
FAILED = {"label": {}, "prediction": [""], "passed": [False]}


@pytest.mark.parametrize("name", measures.names())
def test_no_examples_have_no_value_and_a_reason(name):
    pytest.importorskip(getattr(measures.measure(name).module, "PACKAGE", None) or "numpy")
    found = score(name, [])
    assert found[:2] == (None, None)
    assert found.reason


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("accuracy", [{"label": 1, "prediction": 1}]),
        ("bleu", [text("a b c d", "a b c d")]),
        ("exact_match", [text("a", "a")]),
        ("gsm8k_accuracy", [text("4", "#### 4")]),
        ("matthews", [{"label": k, "prediction": k} for k in (0, 1)]),
        ("pass_at_1", [FAILED]),
        ("pearson", [{"label": float(k), "prediction": float(k)} for k in (0, 1)]),
        ("perplexity", [tokens(1.0, 2)]),
        ("perplexity", [tokens(1.0, 2), GONE]),
        ("rougeL", [text("a", "a")]),
    ],
)
def test_an_error_that_is_missing_has_a_reason_and_one_that_is_there_has_none(name, rows):
    pytest.importorskip(getattr(measures.measure(name).module, "PACKAGE", None) or "numpy")
    alone = score(name, rows)
    assert alone.value is not None
    if name != "accuracy":  # of a share, which is 0 where all are right
        assert alone.standard_error is None
        assert alone.reason
    for several in (score(name, rows * 2), score(name, rows * 5)):
        assert (several.standard_error is None) == (several.reason is not None)


@pytest.mark.parametrize(
    ("name", "kept", "gone"),
    [
        ("bleu", text("a b c d", "a b c d"), EMPTY),
        ("rougeL", text("a", "a"), EMPTY),
        ("perplexity", tokens(1.0, 2), GONE),
        ("token_accuracy", tokens(1.0, 2), GONE),
    ],
)
def test_what_is_left_out_is_counted_also_where_nothing_is_left(name, kept, gone):
    pytest.importorskip(getattr(measures.measure(name).module, "PACKAGE", None) or "numpy")
    assert score(name, [kept, kept]).details is None
    some = score(name, [gone, kept, gone, kept])
    assert some.details == {"left_out": 2, "because": some.details["because"]}
    assert some.details["because"]
    nothing = score(name, [gone, gone, gone])
    assert nothing[:2] == (None, None)
    assert nothing.reason
    assert nothing.details["left_out"] == 3


def test_no_value_keeps_the_details():
    cut = score("perplexity", [tokens(1e6, 2), tokens(1e6, 2), GONE])
    assert cut.value is None
    assert cut.details["left_out"] == 1
    assert score("gsm8k_accuracy", []).details is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_how_many_losses_are_not_finite_is_said(value):
    found = score("perplexity", [tokens(value, 2), tokens(1.0, 2), tokens(value, 1)])
    assert found.value is None
    assert "2 of 3" in found.reason


def test_a_mean_loss_too_large_is_said_as_that_of_a_token():
    assert "5000 " in score("perplexity", [tokens(1e4, 2)] * 2).reason


@pytest.mark.parametrize("name", ["perplexity", "pearson", "spearman", "matthews", "macro_f1"])
def test_what_is_undefined_on_the_way_warns_of_nothing(name):
    rows = [tokens(1400.0, 2, 1), tokens(1500.0, 1, 1)]
    if name != "perplexity":
        rows = [{"label": k, "prediction": k} for k in (0, 0, 0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(name, rows)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("perplexity", {"label": None, "prediction": None}),
        ("exact_match", {"label": "a", "prediction": 5}),
        ("gsm8k_accuracy", {"label": "four", "prediction": "4"}),
    ],
)
def test_what_cannot_be_scored_is_named_by_its_index(name, row):
    good = tokens(1.0, 2) if name == "perplexity" else text("4", "#### 4")
    with pytest.raises(DataError, match=r"\b8\b"):
        score(name, [good, row])


def test_an_example_without_an_index_is_named_by_its_place():
    bad = {"label": None, "prediction": None, "count": 3, "loss": None}
    with pytest.raises(DataError, match=r"example 1 .*'loss' None, 'count' 3\b"):
        measures.measure("perplexity").score([tokens(1.0, 2), bad])


@pytest.mark.parametrize("name", ["bleu", "exact_match", "gsm8k_accuracy", "rougeL"])
def test_two_examples_have_an_error(name):
    pytest.importorskip(getattr(measures.measure(name).module, "PACKAGE", None) or "numpy")
    two = score(name, [text("#### 4 of all", "#### 4 of all"), text("#### 5", "#### 4 of all")])
    assert two.standard_error > 0
    assert two.reason is None


ROUNDED = [0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2]


@pytest.mark.parametrize("swap", [False, True])
def test_what_differs_by_rounding_alone_has_no_correlation(swap):
    def pairs(first, second):
        found = [{"label": a, "prediction": b} for a, b in zip(first, second, strict=True)]
        return (
            [{"label": r["prediction"], "prediction": r["label"]} for r in found] if swap else found
        )

    same = score("pearson", pairs(ROUNDED, [1.0, 2.0, 4.0, 3.0]))
    assert same[:2] == (None, None)
    assert same.reason
    but_one = score("pearson", pairs([*ROUNDED, 5.0], [1.0, 2.0, 4.0, 3.0, 9.0]))
    assert but_one.value > 0.9
    assert but_one.standard_error is None
    assert but_one.reason


def test_large_whole_numbers_are_correlated_as_floats():
    rows = [{"label": k * 10**30, "prediction": k * 10**25} for k in (1, 2, 4, 7)]
    assert score("pearson", rows).value == pytest.approx(1)


@pytest.mark.parametrize("name", ["gsm8k_accuracy", "math_accuracy"])
def test_where_no_answer_is_found_it_is_empty_and_its_rule_none(name):
    row = {"index": 0, "label": "#### 4", "prediction": ["nothing"]}
    found = measures.measure(name).explain(row)
    assert found == {"answer": [""], "rule": ["none"], "right": [False]}


def test_texts_that_are_tokens_already_are_none_of_sacrebleus_business(caplog):
    pytest.importorskip("sacrebleu")
    score("bleu(tokenize=none)", [text("a b c d .", "a b c d .")] * 101)
    assert not caplog.records


def test_integers_are_scored_as_the_floats_that_they_are():
    """A count of tokens is a Python integer, and may be larger than one of numpy."""
    whole = score("perplexity", [tokens(2, 2), tokens(4, 4), tokens(10**30, 10**30)])
    assert whole.value == pytest.approx(np.e)


@pytest.mark.parametrize(("few", "enough"), [(2, 1), (5, 4)])
def test_as_many_programs_as_k_are_enough(few, enough):
    row = {**FAILED, "prediction": [""] * enough, "passed": [True] * enough}
    assert score(f"pass_at(k={enough})", [row]).value == 1
    assert score(f"pass_at(k={few})", [row]).value is None


def test_texts_of_several_words_are_equal_word_by_word():
    assert score("code_exact_match", [text("a  b", "a b"), text("ab", "a b")]).value == 0.5
    assert score("code_exact_match", [text("aXX XXb", "a b")]).value == 0
    assert score("exact_match", [text(" a b ", "a b"), text("a  b", "a b")]).value == 0.5


@pytest.mark.parametrize(("name", "number"), [("binary_f1", 2), ("macro_f1", None)])
def test_a_metric_says_for_how_many_classes_it_is(name, number):
    assert measures.measure(name).num_classes == number


def test_a_squad_answer_shares_words_with_its_reference_or_is_as_empty():
    assert score("squad_v2_f1", [text("the", ["Paris"])]).value == 0
    assert score("squad_v2_f1", [text("Paris", ["the"])]).value == 0
