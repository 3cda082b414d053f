"""`check` of what is more than one run: every run of a study, a search's base and ends, without a trace."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graftlab import cli

BASE = """
base:
  backbone: {kind: tiny, width: 8, layers: 1}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: lora}
  training: {max_steps: 2, learning_rate: 3e-3}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, first in (("train", 0), ("test", 20)):
        rows = [f"{w} {n},{n % 2}\n" for n in range(first, first + 20) for w in ("good", "bad")]
        Path(f"{name}.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")


def checked(text, *words, code=0):
    Path("file.yaml").write_text(BASE + text, encoding="utf-8")
    before = sorted(Path().rglob("*"))
    said = CliRunner().invoke(cli.app, ["check", "file.yaml", *words])
    assert said.exit_code == code, said.output
    assert sorted(Path().rglob("*")) == before
    return said.output if code else said.stdout


def test_a_study_is_shown_as_the_runs_that_it_asks_for():
    study = (
        "methods: [lora, {name: lora, rank: 2}, head]\nseeds: [3, 4]\n"
        "vary: {training.learning_rate: [1e-3, 2e-3]}\n"
    )
    *lines, last = checked(study).splitlines()
    said = dict(line.split(maxsplit=1) for line in lines)
    assert said["methods"] == "lora, lora rank=2, head"
    assert said["settings"].split("; ") == [
        "training.learning_rate=0.001", "training.learning_rate=0.002",
    ]  # fmt: skip
    assert said["seeds"] == "3, 4"
    assert {"compared:", "12"} <= set(last.split())
    found = json.loads(checked(study, "--json"))
    assert (found["ok"], found["study"], len(found["runs"]), found["code"]) == (
        True,
        "file",
        12,
        [],
    )
    fewer = json.loads(checked(study, "--json", "--set", "seeds=[3]", "--set", "base.seed=1"))
    assert len(fewer["runs"]) == 6


def test_what_is_odd_about_rows_and_rates_is_said_once_for_all_runs():
    found = json.loads(checked("methods: [lora, full]\nseeds: [0, 1]\n", "--json"))
    notes = found["notes"]
    assert [note["kind"] for note in notes].count("class_counts") == 1
    (rate,) = (note for note in notes if note["kind"] == "rate_unusual")
    assert rate["method"] == "full"


def test_each_run_of_a_study_and_the_ends_of_a_search_are_checked():
    said = checked("methods: [lora, {name: prefix, tokns: 2}]\nseeds: [0]\n", code=2)
    assert "tokns" in said
    said = checked("space: {training.batch_size: {int: [0, 4]}}\ntrials: 3\n", code=2)
    assert "training.batch_size" in said
    said = checked("methods: [lora]\ntune: {space: {method.rnk: [2, 4]}, trials: 2}\n", code=2)
    assert "rnk" in said


def test_a_study_that_tunes_says_how_many_trials_come_before():
    said = checked(
        "methods: [lora, head]\ntune: {space: {training.learning_rate: [1e-3, 2e-3]}, trials: 3}\n"
    )
    assert "6 before" in said
    assert "2 runs" in said


def test_a_search_is_shown_as_what_its_fields_may_take():
    space = (
        "space:\n  method.rank: {int: [2, 8], log: true}\n"
        "  method.dropout: {float: [0.0, 0.3], step: 0.1}\n"
        "  training.learning_rate: [1e-3, 2e-3]\ntrials: 3\nhours: 2\n"
    )
    found = json.loads(checked(space, "--json"))["space"]
    assert [re.findall(r"\d[\d.]*", found[key]) for key in found] == [
        ["2", "8"], ["0", "0.3", "0.1"], ["0.001", "0.002"],
    ]  # fmt: skip
    assert ["logarithm" in said for said in found.values()] == [True, False, False]
    assert {"searched:", "3", "2"} <= set(checked(space).splitlines()[-1].split())
    grid = json.loads(
        checked("space: {method.rank: [2, 4, 8]}\nsampler: {name: grid}\ntrials: null\n", "--json")
    )
    assert grid["space"] == {"method.rank": "2, 4, 8"}


def test_with_the_model_a_budget_is_checked_too():
    wanted = "methods: [lora, full]\nbudget: {equal: trainable, within: 0.1}\n"
    assert "2 runs" in checked(wanted)
    assert "budget" in checked(wanted, "--model", code=2)


def test_a_function_of_another_package_is_named_and_not_called():
    said = checked(
        "methods: [lora]\n", "--set", "base.task={kind: classification, source: 'numpy:array'}"
    )
    assert "numpy:array" in said
    assert "--allow-code" in said
