"""Whatever stands in the columns of the inputs, what was predicted of them is written."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from graftlab.inference import answers

HALF = "\ud83d"
"""Half of a surrogate pair: JSON may hold it, and UTF-8 cannot."""
ODD: dict[str, tuple[list[Any], list[Any]]] = {  # a column of the inputs, and of what is written
    "numbers beyond 64 bits": ([2**63, None, 1], [str(2**63), None, "1"]),
    "numbers beyond 53 bits beside others": ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
    "numbers": ([1, 0.5], [1.0, 0.5]),
    "half a surrogate": ([f"a {HALF}", "b"], ["a \\ud83d", "b"]),
    "half a surrogate in a list": ([[HALF], "b"], ['["\\\\ud83d"]', "b"]),
    "pairs": (["\U0001f600", "b"], ["\U0001f600", "b"]),
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[Any]]:
    """Return a file of inputs with an odd column, and what is to be read of it again."""
    values, expected = ODD[request.param]
    rows = [{"text": "a", "odd": value} for value in values]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, expected


def written(output: Path, source: Path, number: int) -> Path:
    answers.write(output, [{"index": i, "completion": "so"} for i in range(number)], source)
    return output


def test_parquet_has_a_column_as_numbers_where_they_fit_and_else_as_texts(
    odd: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    import pyarrow.parquet

    source, expected = odd
    path = written(tmp_path / "out.parquet", source, len(expected))
    columns = pyarrow.parquet.read_table(path).to_pydict()
    assert columns["odd"] == expected
    assert columns["prediction"] == ["so"] * len(expected)


def test_csv_and_jsonl_have_them_as_they_are(odd: tuple[Path, list[Any]], tmp_path: Path) -> None:
    source, expected = odd
    with written(tmp_path / "out.csv", source, len(expected)).open(encoding="utf-8") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == ["so"] * len(expected)
    lines = written(tmp_path / "out.jsonl", source, len(expected)).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    given = [json.loads(line)["odd"] for line in source.read_text().splitlines()]
    for row, value in zip(rows, given, strict=True):
        assert row["completion"] == "so"
        assert json.dumps(row["input"]["odd"]) == json.dumps(value).replace(
            '\\ud83d"', '\\\\ud83d"'
        )


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_name_of_a_column_and_an_answer_are_writable_too(tmp_path: Path, suffix: str) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / f"out.{suffix}"
    source.write_text('{"text": "a", "\\ud83d": "b"}\n')
    found = {"index": 0, "name": HALF, "probabilities": {HALF: 0.75, "b": 0.25}}
    answers.write(output, [found], source)
    assert b"\\ud83d" in output.read_bytes()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("-1,5;a", "-1,5;a;0,75"), ("-1.5;a", "-1.5;a;0.75"), ("7;=a", "7;'=a;0.75")],
)
def test_numbers_are_written_as_the_table_beside_them_has_them(
    given: str, expected: str, tmp_path: Path
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(f"n;text\n{given}\n")
    answers.write(output, [{"index": 0, "label": 0.75}], source)
    assert output.read_text().splitlines() == ["row;n;text;prediction", f"1;{expected}"]
