"""What a draft guesses of rows and of prompts, and what of its data stands in its comments."""

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab import config, drafts
from graftlab.drafts import axolotl, columns, text
from graftlab.drafts.draft import Draft, Left

LINE = "x\nseed: 7"


def test_no_comment_becomes_a_key(tmp_path: Path) -> None:
    draft = Draft(
        Path(f"{LINE}.csv"),
        f"rows {LINE}",
        {"name": "a", "task": {"kind": "classification", "labels": ["a"]}},
        {"name": LINE, "task": f"{LINE}\u2028\x85\x07", "task.labels": LINE},
        (Left(LINE, LINE, LINE),),
    )
    said = text.written(draft, Path(f"{LINE}.yaml"))
    (tmp_path / "run.yaml").write_text(said)
    assert config.read_yaml(tmp_path / "run.yaml") == draft.values
    assert "".join(said.splitlines()).isprintable()


def test_a_column_with_a_line_break_stays_in_the_comment(tmp_path: Path) -> None:
    rows = [{"text": f"a {i}", "label": "ab"[i % 2], LINE: str(i)} for i in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.yaml").write_text(text.written(drafts.read(path), tmp_path / "run.yaml"))
    assert "seed" not in config.read_yaml(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"field_instruction": "input", "field_input": "context"}, "{input} :: {context}"),
        ({"field_instruction": "input", "field_input": "instruction"}, "{input} :: {instruction}"),
        ({"field_system": "input"}, "{instruction} :: {input}"),
    ],
    ids=str,
)
def test_columns_called_as_other_words_are_put_in_once(said: Any, expected: str) -> None:
    given = {"datasets": [{"path": "a/b", "type": {"format": "{instruction} :: {input}", **said}}]}
    assert axolotl.draft(given, Path("a.yml")).values["task"]["prompt"] == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([1, 2, 3, 4], "12345"),
        (["1", "2", "5"], "12345"),
        ([0, 1, 2], "01234"),
        (["A", "B", "C"], "ABCDE"),
        (["a", "b"], "abcde"),
    ],
    ids=str,
)
def test_right_choices_are_counted_as_the_data_count_them(
    tmp_path: Path, answers: list[Any], expected: str
) -> None:
    rows = [
        {"question": f"which {i}?", "choices": list("vwxyz")[: 5 - (i > 0)], "answer": answer}
        for i, answer in enumerate(answers)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert columns.task_of(path)["labels"] == list(expected)
