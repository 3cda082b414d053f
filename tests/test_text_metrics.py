"""Metrics of texts, tokens and programs against their libraries, official scripts' cases and hand counts."""

import gzip
import json
import math
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from graftlab.errors import DataError
from graftlab.metrics import Score, _final_answers
from graftlab.runfile import measures

DATA = Path(__file__).parents[2] / "shared" / "data"
TEXTS = (  # written, reference
    ("the cat sat on the mat", "the cat is on the mat"),
    ("A quick brown fox jumps over a dog.", "The quick brown fox jumped over the lazy dog."),
    ("nothing alike", "quite another thing to say"),
    ("police killed the gunman", "the gunman was shot by the police, they said"),
    ("exactly the same words in both", "exactly the same words in both"),
)


def score(name, rows) -> Score:
    rows = [{"index": i, "label": gold, "prediction": text} for i, (text, gold) in enumerate(rows)]
    return measures.measure(name).score(rows)


def rows_of(name, split):
    path = DATA / name / f"{split}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}: real data are not beside this clone")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# Answers in texts.


@pytest.mark.parametrize(
    ("text", "value", "rule"),
    [
        ("so 7.\n#### 1,234,567", 1234567, "####"),
        ("The answer is: 3\n#### 4", 4, "####"),
        (
            "#### 18\n\nQuestion: another?\n#### 7",
            18,
            "####",
        ),  # what comes after belongs to another
        ("#### none, really.\nThe answer is 5", 5, "the answer is"),
        ("The answer is: 2. No. The answer is: -5.", -5, "the answer is"),
        ("the final answer is \\$1,200.50 a month", Fraction(2401, 2), "the answer is"),
        ("The answer is: **42**.", 42, "the answer is"),
        ("it is \\boxed{\\frac{3}{4}} of 9", Fraction(3, 4), "boxed"),
        ("\\boxed{1} or rather \\boxed{\\text{about } -\\frac{1}{2}}", Fraction(-1, 2), "boxed"),
        ("10 - 7 is 3, which is not 12-5", 5, "last number"),  # a minus between numbers is no sign
        ("it falls by \u22123.5 degrees", Fraction(-7, 2), "last number"),
        ("3/4 cup", Fraction(3, 4), "last number"),
        ("he saves 50%", 50, "last number"),
        ("7 over 5/0", 7, "last number"),  # a division by zero is no number
        ("5 times " + "9" * 5000, 5, "last number"),  # nor is what a model repeats for ever
    ],
)
def test_the_number_is_found_by_the_first_rule_that_fits(text, value, rule):
    found, fired = _final_answers.number(text)
    assert (found.value, fired) == (value, rule)


@pytest.mark.parametrize("text", ["", "no number here", "5/0", "####", "The answer is:"])
def test_a_text_without_a_number_has_none(text):
    assert _final_answers.number(text) is None


def test_gsm8k_counts_equal_numbers_and_nothing_near():
    gold = "3 + 1 = <<3+1=4>>4\n#### 4"
    right = ["#### 4", "The answer is: 4.", "4.0 dollars", "$4", "\\boxed{8/2}", "4.0000000001"]
    wrong = ["#### 3.5", "4.4", "#### 40", "I do not know", "4/0", "-4"]
    found = score("gsm8k_accuracy", [(text, gold) for text in right + wrong])
    assert found.value == 0.5
    assert found.standard_error == pytest.approx(math.sqrt(0.25 / 12))
    assert found.details["rules"] == {
        "####": 3, "the answer is": 1, "boxed": 1, "last number": 5, "none": 2
    }  # fmt: skip
    assert score("gsm8k_accuracy", [("1234567", "#### 1,234,567")]).value == 1
    assert score("gsm8k_accuracy", [("1234", "#### 1,234,567")]).value == 0


def test_each_answer_says_which_rule_found_it():
    row = {"index": 0, "label": "#### 1,000", "prediction": ["= 1000", "#### 2"]}
    assert measures.measure("gsm8k_accuracy").explain(row) == {
        "answer": ["1000", "2"], "rule": ["last number", "####"], "right": [True, False]
    }  # fmt: skip


def test_gsm8k_refuses_references_without_a_number():
    with pytest.raises(DataError, match="holds no number"):
        score("gsm8k_accuracy", [("4", "four")])


def test_every_answer_of_gsm8k_is_right_for_itself():
    rows = rows_of("gsm8k", "test")
    found = score("gsm8k_accuracy", [(row["answer"], row["answer"]) for row in rows])
    assert found.value == 1
    assert found.details["rules"]["####"] == len(rows)
    official = [row["answer"].split("#### ")[1].replace(",", "") for row in rows]
    assert (
        score("gsm8k_accuracy", zip(official, (r["answer"] for r in rows), strict=True)).value == 1
    )


@pytest.mark.slow  # for the harness's imports
def test_normal_forms_are_those_of_the_harness_on_all_of_math():
    harness = pytest.importorskip("lm_eval.tasks.hendrycks_math.utils")
    rows = rows_of("math", "test") + rows_of("math", "train")
    golds = [_final_answers.gold_expression(row["solution"]) for row in rows]
    theirs = [harness.remove_boxed(harness.last_boxed_only_string(r["solution"])) for r in rows]
    assert [g for g in zip(golds, theirs, strict=True) if g[0] != g[1].strip()] == []
    other = []
    for gold in golds:
        try:
            same = _final_answers.normalised(gold) == harness.strip_string(gold)
        except ValueError:  # theirs reads a/b in a matrix as one fraction
            same = False
        if not same:
            other.append(gold)
    # Theirs reads `\sqrt 3` as the root of a space.
    assert len(other) <= 3
    assert all("\\sqrt " in gold or "pmatrix" in gold for gold in other)


@pytest.mark.parametrize(
    ("text", "gold", "spelled", "number"),
    [
        ("\\boxed{\\dfrac{1}{2}}", "so $\\boxed{\\frac12}$.", 1, 1),
        ("The answer is: $0.5$. I hope it is right.", "\\frac{1}{2}", 1, 1),
        ("The answer is: 0.75", "\\frac{3}{4}", 0, 1),
        ("#### 10000", "10,\\!000", 0, 1),
        ("\\boxed{x=5}", "5", 1, 1),
        ("\\boxed{90^\\circ}", "90", 1, 1),
        ("\\boxed{\\left(3, \\frac{\\pi}{2}\\right)}", "\\boxed{ (3,\\frac{\\pi}{2}) }", 1, 1),
        ("\\boxed{2\\sqrt3}", "2\\sqrt{3}", 1, 1),
        ("\\boxed{12\\text{ cm}}", "12", 1, 1),
        ("The answer is: p - q.\nQuestion: p?", "p-q", 1, 1),
        ("it is 5", "5", 1, 1),
        ("\\boxed{1,234", "1234", 0, 1),  # cut before its brace: the last number
        ("\\boxed{1, 234}", "1234", 0, 0),  # a list
        ("\\boxed{1/0}", "0", 0, 0),
        ("\\boxed{0.333333}", "\\frac{1}{3}", 0, 1),  # within 1e-6 of a decimal
        ("\\boxed{\\frac{333333}{1000000}}", "\\frac{1}{3}", 0, 0),  # no decimal: exact
        ("no idea", "7", 0, 0),
    ],
)
def test_math_counts_spellings_and_numbers_apart(text, gold, spelled, number):
    assert score("math_accuracy", [(text, gold)]).value == spelled
    assert score("math_accuracy_rational", [(text, gold)]).value == number


# SQuAD.


@pytest.mark.parametrize(
    ("text", "golds", "exact", "f1"),
    [
        ("The Normans!", ["Normans", "Norman people"], 1, 1),
        ("in France", ["France"], 0, 2 / 3),
        ("10th and 11th centuries", ["10th century", "10th and 11th centuries"], 1, 1),
        ("", [], 1, 1),
        ("", [""], 1, 1),
        ("The", [""], 1, 1),  # an article has nothing left
        ("Paris", [], 0, 0),
        ("unanswerable", [], 1, 1),
        ("The question is unanswerable.", [""], 1, 1),
        ("unanswerable", ["unanswerable"], 1, 1),
        ("", ["unanswerable"], 1, 1),
        ("unanswerable", ["Paris"], 0, 0),
        ("", ["Paris"], 0, 0),
        ("a b b c", ["b b d"], 0, 4 / 6),  # `a` goes; 2 common of 3 and 3
    ],
)
@pytest.mark.parametrize("form", [lambda golds: {"text": golds, "answer_start": []}, list])
def test_squad_is_scored_as_the_official_script_does(text, golds, exact, f1, form):
    assert score("squad_v2_exact", [(text, form(golds))]).value == exact
    assert score("squad_v2_f1", [(text, form(golds))]).value == pytest.approx(f1)
    if len(golds) == 1:
        assert score("squad_v2_f1", [(text, golds[0])]).value == pytest.approx(f1)


def test_squad_tells_questions_with_and_without_an_answer_apart():
    found = score("squad_v2_f1", [("in France", ["France"]), ("Paris", []), ("", []), ("", [])])
    assert found.value == pytest.approx((2 / 3 + 2) / 4)
    assert found.details["no_answer"] == {"value": pytest.approx(2 / 3), "count": 3}
    assert found.details["has_answer"] == {"value": pytest.approx(2 / 3), "count": 1}
    assert score("squad_v2_exact", [("", [])]).details["has_answer"]["value"] is None


def test_never_answering_scores_what_share_has_no_answer_on_squad():
    rows = [(row["answers"]) for row in rows_of("squad_v2", "validation")]
    share = sum(not row["text"] for row in rows) / len(rows)
    for name in ("squad_v2_exact", "squad_v2_f1"):
        assert score(name, [("unanswerable", row) for row in rows]).value == pytest.approx(share)
        first = [(row["text"][-1] if row["text"] else "", row) for row in rows]
        assert score(name, first).value == 1


# ROUGE and BLEU.


def test_rouge_by_hand():
    rows = TEXTS[:1]  # 5 of 6 words, 3 of 5 pairs, and `the cat on the mat` in order
    assert score("rouge1", rows).value == pytest.approx(5 / 6)
    assert score("rouge2", rows).value == pytest.approx(3 / 5)
    assert score("rougeL", rows).value == pytest.approx(5 / 6)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_mean_of_the_library_with_the_best_reference(name):
    library = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer([name])
    expected = [library.score(gold, text)[name].fmeasure for text, gold in TEXTS]
    found = score(name, TEXTS)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.standard_error == pytest.approx(np.std(expected) / math.sqrt(len(expected)))
    assert found.details is None
    several = [(text, ["other words", gold]) for text, gold in TEXTS]
    best = [max(library.score(g, text)[name].fmeasure for g in golds) for text, golds in several]
    assert score(name, several).value == pytest.approx(np.mean(best))


def test_references_without_words_are_left_out_and_counted():
    found = score("rougeL", [*TEXTS[:1], ("x", ""), ("x", "\u4f60\u597d"), ("x", [])])
    assert found.value == pytest.approx(5 / 6)
    assert found.details["left_out"] == 3
    assert "no word" in found.details["because"]
    nothing = score("rougeL", [("x", ""), ("y", "")])
    assert nothing.value is None
    assert "no word" in nothing.reason
    for name in ("bleu", "code_bleu_ngrams"):
        assert score(name, [("x", ""), ("y", [])]).reason == "all references are empty"
        assert score(name, [*TEXTS, ("x", "")]).details["left_out"] == 1
        assert score(name, [*TEXTS, ("x", "")]).value == score(name, TEXTS).value


def test_bleu_is_sacrebleus_and_its_error_the_jackknife_of_it():
    sacrebleu = pytest.importorskip("sacrebleu")
    texts, golds = map(list, zip(*TEXTS, strict=True))
    found = score("bleu", TEXTS)
    assert found.value == pytest.approx(sacrebleu.corpus_bleu(texts, [golds]).score / 100)
    left = [
        sacrebleu.corpus_bleu(texts[:i] + texts[i + 1 :], [golds[:i] + golds[i + 1 :]]).score / 100
        for i in range(len(texts))
    ]
    assert found.standard_error == pytest.approx(math.sqrt((len(left) - 1) * np.var(left)))
    second = ["the cat sat there", "a dog", "nothing alike here", "the police killed him", "both"]
    several = [(text, list(pair)) for text, *pair in zip(texts, golds, second, strict=True)]
    expected = sacrebleu.corpus_bleu(texts, [golds, second]).score / 100
    assert score("bleu", several).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        ("bleu(lowercase=true)", {"lowercase": True}),
        ("bleu(max_order=2)", {"max_ngram_order": 2}),
        ("bleu(tokenize=char)", {"tokenize": "char"}),
        ("bleu(smooth=none)", {"smooth_method": "none"}),
        (
            "bleu(tokenize=none,smooth=add-k,smooth_value=2.0)",
            {"tokenize": "none", "smooth_method": "add-k", "smooth_value": 2.0, "force": True},
        ),
    ],
)
def test_bleu_with_settings_is_sacrebleus_with_them(asked, settings):
    library = pytest.importorskip("sacrebleu.metrics.bleu").BLEU(**settings)
    rows = [("The Police killed him.", "the police killed them"), ("no like", "nothing alike")]
    texts, golds = map(list, zip(*rows, strict=True))
    expected = library.corpus_score(texts, [golds]).score / 100
    assert expected != score("bleu", rows).value
    assert score(asked, rows).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("asked", "kind", "stemmer"),
    [("rouge(n=3)", "rouge3", False), ("rouge(n=Lsum)", "rougeLsum", False),
     ("rouge(n=1,stemmer=true)", "rouge1", True)],
)  # fmt: skip
def test_rouge_with_settings_is_the_librarys_with_them(asked, kind, stemmer):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer([kind], stemmer)
    rows = [("he jumps\nand runs far", "they ran and jumped\nfar and wide"), *TEXTS]
    expected = [scorer.score(gold, text)[kind].fmeasure for text, gold in rows]
    assert score(asked, rows).value == pytest.approx(np.mean(expected))


def test_the_ngrams_of_codebleu_are_smoothed_as_in_nltk():
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    rows = [
        ("return a + b ;", "return a - b ;"),
        ("if ( x ) return ;", "while ( x ) { y ( ) ; }"),
        ("int f ( ) { return 1 ; }", "int f ( ) { return 1 ; }"),
    ]
    for some in (rows, rows[:1], rows[1:2]):
        expected = nltk.corpus_bleu(
            [[gold.split()] for _, gold in some],
            [text.split() for text, _ in some],
            smoothing_function=nltk.SmoothingFunction().method1,
        )
        assert score("code_bleu_ngrams", some).value == pytest.approx(expected)


def test_exact_matches_by_hand():
    rows = [("Yes ", "Yes"), ("yes", "Yes"), ("b", ["a", "b"]), ("", []), ("no", {"text": ["yes"]})]
    assert score("exact_match", rows).value == pytest.approx(3 / 5)
    assert score("exact_match", rows).standard_error == pytest.approx(math.sqrt(0.6 * 0.4 / 5))
    code = [("int  x ;\n", "int x ;"), ("int x;", "int x ;"), ("int X ;", "int x ;")]
    assert score("code_exact_match", code).value == pytest.approx(1 / 3)


# Tokens.


def tokens(rows):
    return [
        {"index": i, "label": None, "prediction": None, "loss": loss, "count": n, "correct": right}
        for i, (loss, n, right) in enumerate(rows)
    ]


def test_tokens_count_alike_however_they_lie_in_examples():
    rows = tokens([(2 * math.log(2), 2, 2), (6 * math.log(4), 6, 1)])
    perplexity = measures.measure("perplexity").score(rows)
    assert perplexity.value == pytest.approx(2 ** (14 / 8))  # not the mean of 2 and 4
    assert measures.measure("token_accuracy").score(rows).value == pytest.approx(3 / 8)
    # Left without one example each: 4 and 2; 1/6 and 1. The jackknife of two values is half their gap.
    assert perplexity.standard_error == pytest.approx(1)
    found = measures.measure("token_accuracy").score(rows)
    assert found.standard_error == pytest.approx((1 - 1 / 6) / 2)


def test_perplexity_is_that_of_a_softmax_over_all_tokens():
    from scipy.special import softmax

    draws = np.random.default_rng(0)
    shares_N = softmax(draws.normal(size=(12, 7)), axis=1)[range(12), draws.integers(7, size=12)]
    rows = [(-np.log(shares_N[i : i + 3]).sum(), 3, 0) for i in range(0, 12, 3)]
    found = measures.measure("perplexity").score(tokens(rows))
    assert found.value == pytest.approx(np.prod(shares_N) ** (-1 / 12))


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e6])
def test_a_loss_that_gives_no_number_gives_no_perplexity(loss):
    found = measures.measure("perplexity").score(tokens([(loss, 2, 1), (1.0, 2, 1)]))
    assert found[:2] == (None, None)
    assert "finite" in found.reason or "too large" in found.reason


def test_answers_that_were_cut_off_are_left_out_and_counted():
    cut = {"index": 2, "label": "gone", "prediction": None, "loss": None, "count": 0, "correct": 0}
    rows = tokens([(2 * math.log(2), 2, 2), (6 * math.log(4), 6, 1)])
    for name in ("perplexity", "token_accuracy"):
        metric = measures.measure(name)
        found = metric.score([*rows, cut])
        assert found[:2] == metric.score(rows)[:2]
        assert found.details["left_out"] == 1
        assert metric.score([cut]).value is None


def test_metrics_of_tokens_refuse_predictions_of_classes():
    with pytest.raises(DataError, match="kind: generation"):
        score("perplexity", [(1, 0), (0, 1)])


# Programs.


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (7, 0, 2), (7, 6, 2), (4, 4, 4)])
def test_pass_at_k_is_the_share_of_draws_with_a_program_that_passes(n, c, k):
    from graftlab.metrics.pass_at import pass_at

    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at(k, n, c) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_pass_at_k_is_the_mean_over_problems(k):
    from graftlab.metrics.pass_at import pass_at

    rows = [
        {"index": i, "label": {}, "prediction": [], "passed": [j < i for j in range(200)]}
        for i in (0, 3, 200)
    ]
    found = measures.measure(f"pass_at_{k}").score(rows)
    # The product of Chen et al., figure 3.
    product = 1 - np.prod(1 - k / np.arange(200 - 3 + 1, 200 + 1))
    assert found.value == pytest.approx((0 + product + 1) / 3)
    assert pass_at(k, 200, 3) == pytest.approx(product)


def test_programs_that_were_not_run_or_are_too_few_have_no_score():
    row = {"index": 0, "label": {}, "prediction": ["", ""], "passed": [True, False]}
    assert measures.measure("pass_at_1").score([row]).value == 0.5
    few = measures.measure("pass_at_10").score([row])
    assert few.value is None
    assert "task.generation.samples" in few.reason
    not_run = measures.measure("pass_at_1").score([{**row, "passed": None}, row])
    assert not_run.value is None
    assert "--execute-code" in not_run.reason


# All of them.


@pytest.mark.parametrize("name", ["rougeL", "bleu", "squad_v2_f1", "exact_match", "gsm8k_accuracy"])
def test_samples_of_one_example_count_as_one(name):
    texts = [("#### 1", "#### 1"), ("#### 2", "#### 1"), ("#### 4", "#### 3")]
    each = score(name, [(["#### 1", "#### 2"], "#### 1"), (["#### 4", "#### 4"], "#### 3")])
    one = score(name, [*texts, texts[-1]])
    assert each.value == pytest.approx(one.value)


def test_texts_that_were_never_written_have_no_score():
    for name in ("rougeL", "bleu", "squad_v2_exact", "math_accuracy"):
        found = score(name, [("a 1", "a 1"), (None, "b 2")])
        assert found.value is None
        assert found.reason == "no text was written for 1 of 2 examples of this split"


@pytest.mark.parametrize(("text", "gold"), [(1, "a"), ("a", 1), ("a", {"answer": "a"})])
def test_what_is_no_text_is_refused(text, gold):
    with pytest.raises(DataError, match="text"):
        score("exact_match", [(text, gold)])


def test_bleu_says_nothing_of_sentences(caplog: pytest.LogCaptureFixture) -> None:
    measures.measure("bleu").score([{"label": "a b c d", "prediction": "a b d"}] * 2)
    assert not caplog.records
