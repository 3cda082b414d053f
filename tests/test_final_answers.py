"""Answers in texts that reason: where they stand, and the one spelling in which MATH's are compared."""

from fractions import Fraction

import pytest

from graftlab.metrics import _final_answers
from graftlab.metrics._final_answers import boxed, expression, normalised, number, rational

AS_THE_HARNESS_HAS_IT = {  # given: what `strip_string` of lm-eval's hendrycks_math makes of it
    "10,\\!000": "10,000",
    "a\nb": "ab",
    "\\begin{pmatrix}1\\\\2": "\\begin{pmatrix}1\\2",
    "\\tfrac{1}{2}": "\\frac{1}{2}",
    "\\dfrac12": "\\frac{1}{2}",
    "\\frac1{72}": "\\frac{1}{72}",
    "\\left( 3 \\right)": "(3)",
    "30^\\circ": "30",
    "30^{\\circ}": "30",
    "\\$5": "5",
    "50\\%": "50",
    "12\\text{ cm}": "12",
    " .5 + x": "0.5+x",
    "{.5}": "{0.5}",
    ".5": "\\frac{1}{2}",
    "x = .25": "0.25",
    "xy=5": "5",
    "xyz=5": "xyz=5",
    "abc = 3": "abc=3",
    "x=y=5": "x=y=5",
    "\\sqrt2": "\\sqrt{2}",
    "-3/4": "\\frac{-3}{4}",
    "3/-4": "\\frac{3}{-4}",
    "1/2/3": "1/2/3",
    "x+\\frac12 y": "x+\\frac{1}{2}y",
    "(1, 2)": "(1,2)",
}


@pytest.mark.parametrize(("given", "plain"), AS_THE_HARNESS_HAS_IT.items())
def test_an_answer_has_the_spelling_that_the_harness_gives_it(given, plain):
    assert normalised(given) == plain


@pytest.mark.slow  # for the harness's imports
def test_the_spellings_are_those_of_the_harness_that_is_installed():
    harness = pytest.importorskip("lm_eval.tasks.hendrycks_math.utils")
    found = {given: harness.strip_string(given) for given in AS_THE_HARNESS_HAS_IT}
    assert found == AS_THE_HARNESS_HAS_IT


@pytest.mark.parametrize(("begins", "ends"), [("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")])
def test_the_marks_around_a_formula_are_no_part_of_it(begins, ends):
    assert normalised(f"{begins} x+1 {ends}") == "x+1"
    assert normalised(f"({begins}x{ends}, 1)") != "x"  # they end before the text does
    assert normalised(f"x{ends}") == normalised("x" + ends.replace("$", ""))


def test_a_unit_is_dropped_where_one_stands_and_two_texts_are_none():
    assert normalised("5 \\text{ m}, so") == "5"
    assert normalised("\\text{ a }\\text{ b }") == "\\text{a}\\text{b}"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{a}", "a"),
        ("\\fbox{b} and so on", "b"),
        ("\\boxed{1} or rather \\fbox{2} or \\fbox{3}", "3"),
        ("\\fbox{1} \\boxed{2}", "2"),
        ("\\boxed{{a}{b}} }", "{a}{b}"),
        ("\\boxed{ \\frac{1}{2} }", "\\frac{1}{2}"),
        ("\\boxed 5 and more", "5"),
        ("it is $\\boxed  7$ now", "7"),
        ("\\boxed", None),
        ("\\boxed!", None),
        ("\\boxed{a", None),  # cut
        ("} \\boxed{a}", "a"),
        ("nothing", None),
    ],
)
def test_what_is_boxed_last_goes_to_its_own_brace(text, inside):
    assert boxed(text) == inside


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        ("#### x + 1\nand more", "x + 1", "####"),
        ("#### 1\n#### 2", "1", "####"),  # what comes after belongs to another
        ("####\n", None, None),
        ("#### ... The answer is 5", "5", "the answer is"),
        ("The answer is x. It is.\nSo it is.", "x", "the answer is"),
        ("The answer is 1. No: the final answer is: **2**.", "2", "the answer is"),
        ("The answer is * **(a, b)** *", "(a, b)", "the answer is"),
        ("The answer is $\\boxed{\\pi}$ of 3.", "\\pi", "the answer is"),
        ("The answer is: 2.5", "2.5", "the answer is"),
        ("The answer is .", None, None),
        ("\\boxed{1} The answer is: ?", "1", "boxed"),
        ("so \\boxed{y} of 3", "y", "boxed"),
        ("3 of 4 are 12.", "12", "last number"),
        ("none", None, None),
    ],
)
def test_an_expression_is_found_by_the_first_rule_that_fits(text, answer, rule):
    assert expression(text) == (None if rule is None else (answer, rule))


def test_after_the_phrase_only_its_own_line_is_read():
    assert number("The answer is:\n7")[0].value == 7  # white space before it is none of it
    assert number("3 is it. The answer is none\nof 7")[1] == "last number"


@pytest.mark.parametrize(
    ("text", "value", "decimal"),
    [
        ("10,\\!000", 10000, False),
        ("1{,}234", 1234, False),
        ("1,234,567", 1234567, False),
        ("\\$1,200.50", Fraction(2401, 2), True),
        ("0.5", Fraction(1, 2), True),
        ("1/2", Fraction(1, 2), False),
        ("-\\frac{3}{4}", Fraction(-3, 4), False),
        ("\\frac{\u22123}{4}", Fraction(-3, 4), False),
        ("50\\%", 50, False),
        ("7 \\text{ cm}", 7, False),
    ],
)
def test_an_expression_is_a_number_from_end_to_end(text, value, decimal):
    assert rational(text) == (value, decimal)


@pytest.mark.parametrize("text", ["1, 234", "12,34", "5 or 6", "x", "1/0", ""])
def test_what_is_no_number_from_end_to_end_is_none(text):
    assert rational(text) is None


def test_a_number_of_as_many_digits_as_are_read_is_read():
    longest = "9" * _final_answers.LONGEST
    assert number(longest)[0].value == int(longest)
    assert number(longest + "9") is None


def test_a_decimal_is_told_from_a_fraction_also_in_the_middle_of_a_text():
    assert number("it is 0.5 m")[0].decimal
    assert not number("it is 1/2 m.")[0].decimal
