"""An input that one task of a mixture is scored on trains in none of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftlab import config, runfile
from graftlab.cli import app
from graftlab.contracts import Data
from graftlab.errors import DataError
from graftlab.runs import material

RUN = """
backbone: {{kind: tiny, width: 16, layers: 1}}
method: {{name: head}}
training: {{max_steps: 1, batch_size: 4}}
task:
  kind: mixture
  data_dir: {folder}
  each: {{kind: classification, max_length: 40}}
  tasks: [{{as: one}}, {{as: two}}]
"""
SHARED = {  # rows of a task that another has as well: in the other's test, or in its validation
    ("one", "validation"): [("Test  TWO 3", "a"), ("validation two 0", "b")],
    ("two", "train"): [("TEST one 2", "x"), ("validation one 1", "y"), ("train one 4", "z")],
}


def run_file(folder: Path, shared: Any = SHARED) -> Path:
    for task, labels in (("one", "ab"), ("two", "xyz")):
        (folder / task).mkdir(exist_ok=True)
        for split, count in (("train", 12), ("validation", 6), ("test", 6)):
            rows = [(f"{split} {task} {i}", labels[i % len(labels)]) for i in range(count)]
            rows += shared.get((task, split), [])
            lines = "\n".join(",".join(row) for row in [("text", "label"), *rows])
            (folder / task / f"{split}.csv").write_text(lines + "\n")
    path = folder / "run.yaml"
    path.write_text(RUN.format(folder=folder))
    return path


def read(path: Path, *changes: str) -> Data:
    return material.read(runfile.resolve(config.read(path, changes)))


def texts(data: Data, split: str) -> set[str]:
    return {row["text"] for row in data.splits[split]}


def test_what_another_task_is_scored_on_leaves_train_and_validation_and_is_counted(tmp_path):
    data = read(run_file(tmp_path))
    assert texts(data, "train") & {"TEST one 2", "validation one 1", "train one 4"} == {
        "train one 4"
    }
    kept = texts(data, "validation")
    assert "Test  TWO 3" not in kept
    assert {"validation two 0", "validation one 1"} <= kept
    assert len(data.splits["test"]) == 12
    one, two = data.record["tasks"]["one"], data.record["tasks"]["two"]
    assert one["overlap"] == {"validation": {"also_in_test_of_two": {"count": 1, "rows": [7]}}}
    assert two["overlap"] == {
        "train": {
            "also_in_validation_of_one": {"count": 1, "rows": [14]},
            "also_in_test_of_one": {"count": 1, "rows": [13]},
        }
    }
    sizes = {"train": 12 + 13, "validation": 7 + 6, "test": 12}
    assert data.record["sizes"] == sizes
    assert one["sizes"] == {"train": 12, "validation": 7, "test": 6}
    assert data.record["validation/sliced_train_data_size"] == 25
    counted = [
        n for n in data.record["notes"] if n["kind"] == "class_counts" and n["task"] == "two"
    ]
    assert [(note["rows"], note["classes"]) for note in counted] == [(13, {"z": 5, "x": 4, "y": 4})]
    (drawn,) = [note["drawn"] for note in data.record["notes"] if note["kind"] == "drawn_of_tasks"]
    assert {name: found["rows"] for name, found in drawn.items()} == {"one": 12, "two": 13}


def test_a_mixture_without_such_rows_is_known_by_the_fingerprint_of_its_tasks_rows(tmp_path):
    apart, mixed = read(run_file(tmp_path, {})), read(run_file(tmp_path))
    assert not any(note["kind"] == "rows_of_other_task" for note in apart.record["notes"])
    without = {
        ("two", "train"): [("train one 4", "z")],
        ("one", "validation"): SHARED["one", "validation"][1:],
    }
    never = read(run_file(tmp_path, without))
    for split in ("train", "validation", "test"):
        same = never.record["fingerprint"][split] == mixed.record["fingerprint"][split]
        assert same is (split == "test")


@pytest.mark.parametrize("shared", SHARED)
def test_a_task_that_refuses_overlap_names_both_rows(tmp_path, shared):
    path = run_file(tmp_path, {shared: SHARED[shared]})
    row, held = {"one": (7, "two's test row 4"), "two": (14, "one's validation row 2")}[shared[0]]
    with pytest.raises(DataError, match=f"{shared[0]}'s {shared[1]} row {row} = {held}"):
        read(path, "task.each.overlap=refuse")


def test_a_task_all_of_whose_train_rows_another_is_scored_on_is_refused(tmp_path):
    path = run_file(tmp_path)
    rows = [f"test one {i},{'xyz'[i % 3]}" for i in range(6)]
    (tmp_path / "two" / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    (problem,) = caught.value.problems
    assert problem.kind == "refused"
    assert "two" in str(caught.value)


@pytest.mark.parametrize("command", ["check", "prepare", "run"])
def test_check_prepare_and_run_say_what_was_left_out(tmp_path, command):
    path = str(run_file(tmp_path))
    out = ["--out", str(tmp_path / "r")] if command == "run" else []
    result = CliRunner().invoke(app, [command, path, "--json", *out])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    notes = said["notes"] if command == "check" else said.get("record", said).get("notes", [])
    if command == "run":
        notes = json.loads((tmp_path / "r" / "environment.json").read_text())["data"]["notes"]
    found = [(n["task"], n["split"], n["other"], n["of"]) for n in notes
             if n["kind"] == "rows_of_other_task"]  # fmt: skip
    assert found == [("one", "validation", "test", "two"), ("two", "train", "validation", "one"),
                     ("two", "train", "test", "one")]  # fmt: skip
