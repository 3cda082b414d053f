"""What is odd about one's data is said before anything is trained: how often, where, and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftlab.cli import app
from graftlab.config import Paths
from graftlab.contracts import Note, read_notes
from graftlab.errors import DataError
from graftlab.tasks import classification, generation


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": ("good", "bad")[i % 4 == 3]} for i in range(count)]


def read(folder: Path, data: list[dict[str, Any]], **fields: Any) -> Any:
    path = write(folder / "d.jsonl", data)
    config = classification.Config(files={"train": path}, **fields)
    return classification.read(config, Paths(), 0)


def notes(data: Any, kind: str) -> list[Note]:
    return [note for note in read_notes(data.record["notes"]) if note.kind == kind]


def one(data: Any, kind: str) -> dict[str, Any]:
    [note] = notes(data, kind)
    return dict(note.fields)


def test_classes_are_counted_and_the_largest_is_what_a_run_has_to_beat(tmp_path: Path) -> None:
    data = read(tmp_path, rows(), test_share=0.2)
    fields = one(data, "class_counts")
    assert fields["classes"] == {"good": 21, "bad": 7}
    assert (fields["largest"], fields["rows"]) == ("good", 28)
    assert fields["right"] == {"validation": 0.75, "test": 0.75}


def test_data_without_fault_have_nothing_but_their_counts_said(tmp_path: Path) -> None:
    kinds = [note.kind for note in read_notes(read(tmp_path, rows()).record["notes"])]
    assert kinds == ["class_counts", "no_test", "validation_carved"]


def test_empty_texts_are_said_left_out_or_refused(tmp_path: Path) -> None:
    odd = rows()
    for place in (4, 9, 11, 30):
        odd[place]["text"] = " \t"[place % 2 :]
    fields = one(read(tmp_path, odd), "texts_empty")
    assert (fields["column"], fields["count"]) == ("text", 4)
    assert [*fields["rows"]] == [5, 10, 12]
    dropped = read(tmp_path, odd, empty="drop")
    assert sum(map(len, dropped.splits.values())) == 36
    assert one(dropped, "rows_left_out")["rows"] == 4
    with pytest.raises(DataError, match=r"4.*text \(rows 5, 10, 12"):
        read(tmp_path, odd, empty="refuse")


def test_repeated_inputs_and_contrary_labels_are_said_and_left_out(tmp_path: Path) -> None:
    odd = [*rows(), {"text": "TEXT 0", "label": "good"}, {"text": "text  1", "label": "bad"}]
    data = read(tmp_path, odd)
    assert (one(data, "inputs_repeated")["count"], [*one(data, "inputs_repeated")["rows"]]) == (
        2,
        [41, 42],
    )
    assert [*one(data, "labels_contrary")["rows"]] == [42]
    kept = read(tmp_path, odd, duplicates="drop")
    assert sum(map(len, kept.splits.values())) == 40
    assert one(kept, "rows_left_out")["rows"] == 2


def test_labels_that_differ_by_case_or_blanks_are_said_with_their_rows(tmp_path: Path) -> None:
    odd = rows()
    for place, label in ((2, "Good"), (5, "good "), (6, "Good")):
        odd[place]["label"] = label
    fields = one(read(tmp_path, odd), "label_variants")
    assert set(fields["labels"]) == {"good", "Good", "good "}
    assert (fields["count"], [*fields["rows"]]) == (3, [3, 6, 7])
    mended = read(tmp_path, odd, labels={"good": "good", "Good": "good", "bad": "bad"})
    assert not notes(mended, "label_variants")


@pytest.mark.parametrize(
    ("labels", "alike"),
    [
        (["Yes", "y", "1", "no"], [{"Yes", "y", "1"}]),
        (["ja", "nein", "Ja", "0", "nein"], [{"nein", "0"}]),
        (["true", "false", "yes", "no"], [{"true", "yes"}, {"false", "no"}]),
        ([1, 0, True, False], []),
        (["yes", "no", "Yes", " no"], []),
        (["0", "1", "2", "yes"], []),
        (["y", "n", "unknown"], []),
    ],
)
def test_yes_in_several_words_is_asked_about_where_all_labels_are_such(
    labels: list[Any], alike: list[set[str]], tmp_path: Path
) -> None:
    odd = [{"text": f"t{i}", "label": labels[i % len(labels)]} for i in range(40)]
    found = [set(note.fields["labels"]) for note in notes(read(tmp_path, odd), "labels_truths")]
    assert found == alike


def test_labels_seen_once_are_said(tmp_path: Path) -> None:
    odd = [*rows(), {"text": "x", "label": "fine"}]
    fields = one(read(tmp_path, odd), "labels_once")
    assert (fields["count"], [*fields["labels"]], [*fields["rows"]]) == (1, ["fine"], [41])


def test_a_spelling_that_stands_once_of_a_class_that_does_not_is_not_said(tmp_path: Path) -> None:
    odd = rows()
    odd[2]["label"] = " good "
    assert not notes(read(tmp_path, odd), "labels_once")
    odd[5]["label"] = "GOOD"
    assert one(read(tmp_path, odd), "labels_once")["labels"] == ["GOOD"]
    mended = read(tmp_path, odd, labels={"good": "good", "GOOD": "good", "bad": "bad"})
    assert not notes(mended, "labels_once")


def test_a_class_for_nearly_every_row_is_refused_and_numbers_are_asked_about(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=r"40 different labels .* task\.columns\.label"):
        read(tmp_path, [{"text": f"t{i}", "label": f"id-{i}"} for i in range(40)])
    data = read(tmp_path, [{"text": f"t{i}", "label": i % 10} for i in range(40)])
    assert one(data, "labels_numbers")["count"] == 10
    assert not notes(
        read(tmp_path, [{"text": f"t{i}", "label": i % 2} for i in range(40)]), "labels_numbers"
    )
    assert not notes(read(tmp_path, [{"text": f"t{i}", "label": i % 5} for i in range(40)],
                          labels=["a", "b", "c", "d", "e"]), "labels_numbers")  # fmt: skip


def test_a_column_that_is_nearly_constant_and_long_texts_are_said(tmp_path: Path) -> None:
    odd = [{"a": f"t{i}", "b": "same" if i else "other", "label": "xy"[i % 2]} for i in range(40)]
    odd[7]["a"], odd[8]["a"] = "word " * 30, "word " * 60
    data = read(tmp_path, odd, columns={"text": "a", "pair": "b"}, max_length=20)
    assert (one(data, "column_constant")["column"], one(data, "column_constant")["count"]) == (
        "pair",
        39,
    )
    fields = one(data, "texts_long")
    assert (fields["count"], fields["words"], [*fields["rows"]]) == (2, 60, [9, 8])


def test_rows_in_two_splits_are_named(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", rows()), write(tmp_path / "b.jsonl", rows()[3:8])
    config = classification.Config(files={"train": train, "test": test})
    data = classification.read(config, Paths(), 0)
    fields = one(data, "rows_in_two_splits")
    assert (fields["count"], [*fields["rows"]], fields["other"]) == (5, [4, 5, 6], "test")


def test_texts_to_write_are_examined_too(tmp_path: Path) -> None:
    data = [{"q": f"q{i % 38}", "a": "" if i == 5 else f"a{i}"} for i in range(40)]
    path = write(tmp_path / "d.jsonl", data)
    config = generation.Config(files={"train": path}, prompt="{q}", completion="{a}")
    found = generation.read(config, Paths(), 0)
    assert one(found, "texts_empty") | {"rows": None} == {
        "split": "train", "column": "a", "count": 1, "rows": None,
    }  # fmt: skip
    assert [*one(found, "inputs_repeated")["rows"]] == [39, 40]


def test_check_and_prepare_say_what_a_run_says(tmp_path: Path) -> None:
    odd = rows()
    odd[4]["text"] = ""
    write(tmp_path / "d.jsonl", odd)
    (tmp_path / "run.yaml").write_text(
        f"backbone: {{kind: tiny, width: 16, layers: 1}}\nmethod: {{name: head}}\n"
        f"task: {{kind: classification, files: {{train: {tmp_path}/d.jsonl}}}}\n"
    )
    kinds = {}
    for command in ("check", "prepare"):
        result = CliRunner().invoke(app, [command, str(tmp_path / "run.yaml"), "--json"])
        said = json.loads(result.stdout)
        said = said["notes"] if command == "check" else said["record"]["notes"]
        kinds[command] = [note["kind"] for note in said]
    assert kinds["prepare"] == kinds["check"]
    assert "texts_empty" in kinds["check"]
    write(tmp_path / "d.jsonl", [{"text": f"t{i}", "label": f"id-{i}"} for i in range(40)])
    result = CliRunner().invoke(app, ["check", str(tmp_path / "run.yaml")])
    assert result.exit_code == DataError.exit_code
