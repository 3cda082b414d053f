"""A label of the data is the class that bears its name, however numbers are spelled."""

import json
from pathlib import Path
from typing import Any

import pytest
from faults import fault

from graftlab import config, runfile
from graftlab.config import Paths
from graftlab.data import labels
from graftlab.errors import ConfigError
from graftlab.tasks import classification

STARS = ["1", "2", "3", "unknown"]


def folder_of(folder: Path, values: list[Any]) -> Path:
    """Write train rows whose text says what their label is, ten of each."""
    rows = [{"text": f"{value} {i}", "label": value} for value in values for i in range(10)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_column_of_numbers_and_words_has_a_class_of_each(tmp_path: Path) -> None:
    section = classification.Config(data_dir=folder_of(tmp_path, [1, 2, 3, "unknown"]))
    data = classification.read(section, Paths(), seed=0)
    assert data.problem.labels == tuple(STARS)
    read = [row for rows in data.splits.values() for row in rows]
    assert {(row["text"].split()[0], STARS[row["label"]]) for row in read} == {
        (name, name) for name in STARS
    }


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1 ", True])
def test_a_name_wins_over_a_place_in_the_list(value: Any) -> None:
    assert labels.Classes(("unknown", "2", "1"))(value) == 2
    with pytest.raises(labels.Unusable):
        labels.Classes(("unknown", "2", "1"))(0)


@pytest.mark.parametrize("value", [0, 0.0, "0", "0.0"])
@pytest.mark.parametrize(
    "names",
    [("1.0", "0.0"), {"1.0": "up", "0.0": "down"}, (" 1", "0 "), ("1.5", "0")],
    ids=str,
)
def test_names_are_spelled_as_labels_are(names: Any, value: Any) -> None:
    assert labels.Classes(names)(value) == 1
    with pytest.raises(labels.Dropped):
        labels.Classes(("2", "3"), ("0.0",))(value)


@pytest.mark.parametrize(
    "names", [("true", "false"), ("True", "False"), {"TRUE": "a", "False": "b"}]
)
def test_what_is_true_is_no_number_where_a_class_is_called_so(names: Any) -> None:
    read_label = labels.Classes(names)
    assert (read_label(True), read_label(False)) == (0, 1)
    with pytest.raises(labels.Unusable):  # not the first class, as 0 is
        labels.Classes(("true", "unsure"))(False)
    with pytest.raises(labels.Dropped):
        labels.Classes(("true", "unsure"), ("false",))(False)
    assert (labels.Classes(("no", "yes"))(True), labels.Classes(("1", "0"))(True)) == (1, 0)


def test_words_that_python_reads_as_numbers_are_words() -> None:
    assert labels.Classes(("nan", "inf"))(1) == 1


def test_dropped_labels_are_none_of_the_classes_however_they_are_spelled() -> None:
    assert labels.infer([1, 2, 3.0], ("3.0",), "x") == ("1", "2")


@pytest.mark.parametrize("names", ['["1", "1.0"]', '{"1": up, "1.0": down}'])
def test_two_names_of_one_label_are_refused(tmp_path: Path, names: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "backbone: {kind: tiny}\nmethod: {name: full}\n"
        f"task: {{kind: classification, data_dir: {folder_of(tmp_path, [1, 2])}, labels: {names}}}\n"
    )
    with pytest.raises(ConfigError, check=fault("conflict", "task.labels")):
        runfile.resolve(config.read(path))
