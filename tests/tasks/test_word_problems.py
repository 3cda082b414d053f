"""The word problems that are made on the spot: their sums are right, and the splits are apart."""

import re

import pytest

from graftlab import runfile
from graftlab.config import Paths
from graftlab.data import word_problems
from graftlab.errors import ConfigError
from graftlab.metrics import gsm8k_accuracy

SUM = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
ROWS = word_problems.rows(train=900, test=100)


def test_every_step_is_a_sum_that_is_right_and_the_last_one_is_the_answer():
    for row in [*ROWS["train"], *ROWS["test"]]:
        for left, sign, right, result in SUM.findall(row["answer"]):
            assert OPERATIONS[sign](int(left), int(right)) == int(result), row
        assert re.findall(r"\d+", row["answer"])[-1] == result
        assert int(result) > 0


def test_a_sum_needs_only_numbers_of_the_story_and_of_steps_before():
    for row in ROWS["test"]:
        known = set(re.findall(r"\d+", row["question"]))
        for left, _, right, result in SUM.findall(row["answer"]):
            assert {left, right} <= known, row
            known.add(result)


def test_no_question_stands_twice_and_the_same_ones_come_each_time():
    questions = [row["question"] for rows in ROWS.values() for row in rows]
    assert len(set(questions)) == 1000
    assert word_problems.rows(train=900, test=100) == ROWS
    assert word_problems.rows(train=900, test=100, seed=1)["train"] != ROWS["train"]


def test_more_than_there_are_is_refused():
    part = runfile.resolve_task("word_problems", ["task.options.train=6000"])
    with pytest.raises(ConfigError):
        part.module.read(part.config, Paths(), 0)


def test_the_metric_of_gsm8k_reads_the_answers():
    rows = [{"label": row["answer"], "prediction": row["answer"]} for row in ROWS["test"]]
    assert gsm8k_accuracy.score(rows).value == 1
