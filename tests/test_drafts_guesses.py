"""What a draft guesses of rows and of prompts, and what of its data stands in its comments."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftlab import cli, config, drafts
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


TABLE = "Nr;Nachricht;Art\n" + "".join(f"{i};Müll {i} da;{'ab'[i % 2]}\n" for i in range(40))
QUIZ = [{"question": f"{i}?", "options": ["x", "y"], "answer": i % 2} for i in range(40)]
TURNS = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", TABLE.encode("cp1252"), {"read": ['";"', "cp1252", "40 rows"],
         "task": ["classification", "Nachricht", "Art"], "not used": ["Nr"], "splits": ["10%"]}),
        ("a.json", json.dumps([{"chat": TURNS}] * 9).encode(), {"task": ["generation", "chat"]}),
        ("a.json", json.dumps(QUIZ).encode(), {"task": ["multiple choice", "options", "answer"]}),
        ("a.jsonl", b'{"instruction": "i", "output": "o", "n": 1}\n' * 9,
         {"task": ["generation", "instruction", "output", "alpaca"], "not used": ["n"]}),
    ],
)  # fmt: skip
def test_what_was_guessed_is_said(
    name: str, content: bytes, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    result = CliRunner().invoke(
        cli.app,
        ["init", "--from", str(tmp_path / name), "--out", str(tmp_path / "r.yaml"), "--json"],
    )
    guesses = json.loads(result.stdout)["guesses"]
    missing = [
        part for key, parts in expected.items() for part in parts if part not in guesses[key]
    ]
    assert missing == []
    assert ("not used" in guesses) == ("not used" in expected)


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
