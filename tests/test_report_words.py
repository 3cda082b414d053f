"""What a report says of rows: each by what is known of it; and the columns of what was varied."""

import csv
import io
from dataclasses import replace

import made_studies
import pytest

from graftlab import report
from graftlab.report import answer, study_page, study_tables, tables
from graftlab.report.tables import Cell, Table

METHODS = ["bitfit", "head", "lora"]
SKILL = {"bitfit": 0.3, "head": 0.35, "lora": 0.95}
FORMS = ["markdown", "latex", "csv", "card"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A study of three methods of which one is far above the others."""
    return made_studies.compared(tmp_path_factory.mktemp("three"), METHODS, 5, SKILL)


def named(sentence):
    """Return the methods that a sentence names."""
    return {method for method in METHODS if method in sentence}


def changed(found, label, **values):
    """Return a comparison in which the differences of a row are others."""
    return replace(
        found,
        differences=tuple(
            replace(one, **values) if label in (one.first, one.second) else one
            for one in found.differences
        ),
    )


def test_the_best_is_better_than_every_other_where_it_was_judged_against_all(three):
    said = answer.answer(three)
    assert "every other" in said
    assert "score" not in said


def test_a_method_without_a_score_is_not_among_those_that_the_best_is_better_than(three):
    empty = replace(three.rows[0].test, mean=None, values={})
    rows = [
        replace(row, test=empty, place=None) if row.method == "head" else row for row in three.rows
    ]
    found = changed(replace(three, rows=tuple(rows)), "head", p=None, better=None, difference=None)
    first, last = answer.answer(found).split(". ")
    assert "every other" not in first
    assert named(first) == {"lora", "bitfit"}
    assert named(last) == {"head"}


def test_a_pair_that_was_never_judged_is_no_pair_that_cannot_be_told_apart(three):
    found = changed(three, "head", p=None, better=None, low=None, high=None, reason="WHY")
    first, last = answer.answer(found).split(". ")
    assert "told apart" not in first + last
    assert named(first) == {"lora", "bitfit"}
    assert named(last) == {"head"}
    assert "WHY" in last


def test_what_was_judged_and_not_beaten_cannot_be_told_apart(three):
    found = replace(
        three,
        differences=tuple(
            replace(one, better=None) if {one.first, one.second} == {"head", "lora"} else one
            for one in three.differences
        ),
    )
    _, second, *_ = answer.answer(found).split(". ")
    rival, beaten = second.split(", and")
    assert "told apart" in rival
    assert named(rival) == {"head"}
    assert named(beaten) == {"bitfit"}


def test_of_one_seed_the_answer_is_of_the_runs_and_not_of_the_methods(tmp_path):
    found = made_studies.compared(tmp_path, METHODS[1:], 1, SKILL)
    assert found.differences[0].p < 0.05
    said = answer.answer(found)
    assert "two runs" in said
    assert "corrected" not in said
    assert not said.startswith("lora")
    assert "Other seeds" in said


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """A study of two ranks and, under keys of one last word, two of something else."""
    folder = tmp_path_factory.mktemp("varied")
    vary = {"method.rank": [4, 16], "training.learning_rate": [0.1, 0.2]}
    return made_studies.compared(folder, ["lora"], 3, vary=vary), folder / "made"


def test_a_varied_rank_stands_beside_the_rank_among_the_rows(varied):
    found, folder = varied
    [group] = study_tables.groups(found)
    table = study_tables.ranking(found, group, "ranking")
    assert table.columns[:4] == ("rank", "method", "method.rank", "learning_rate")
    places = [row[0].value for row in table.rows]
    assert places == sorted(places)
    assert {row[2].text for row in table.rows} == {"4", "16"}
    lines = list(csv.DictReader(io.StringIO(tables.csv(study_page.ranks(found)))))
    assert {line["rank best"] for line in lines} <= {"1", "2", "3", "4"}
    assert {line["method.rank"] for line in lines} == {"4", "16"}
    for form in FORMS:
        assert report.as_text(folder, form).replace("\\", "").count("method.rank") == 1


@pytest.mark.parametrize(
    ("keys", "taken", "expected"),
    [
        (["a.rate", "b.depth"], (), ["rate", "depth"]),
        (["a.rate", "b.rate", "b.depth"], (), ["a.rate", "b.rate", "depth"]),
        (["a.rate", "a.rate"], (), ["rate"]),
        (["method.rank", "a.rate"], {"rank"}, ["method.rank", "rate"]),
        (["task.split", "method.file"], {"split", "file"}, ["task.split", "method.file"]),
    ],
)
def test_a_key_is_called_by_its_last_word_where_nothing_else_is(keys, taken, expected):
    assert list(tables.headed(keys, taken).values()) == expected


def test_over_all_tasks_each_setting_is_a_row(varied):
    found, _ = varied
    other = tuple(replace(row, task="other") for row in found.rows)
    table = study_tables.by_task(replace(found, rows=(*found.rows, *other)))
    means = {row.label: row.score.mean for row in found.rows}
    assert len(means) == 4
    assert {row[0].text: (row[1].value, row[2].value) for row in table.rows} == {
        label: (mean, mean) for label, mean in means.items()
    }


def test_a_missing_value_is_empty_in_csv():
    table = Table("t", "t", ("a", "b"), ((Cell(tables.NOTHING), Cell("-1", -1.0)),))
    assert list(csv.reader(io.StringIO(tables.csv(table)))) == [["a", "b"], ["", "-1"]]
