"""Mistakes of `mistakes.yaml` in run files and commands: each is refused at its place, with what to do."""

import json
import shlex
from pathlib import Path
from typing import Any

import played_with
import pytest
from typer.testing import CliRunner

from graftlab import cli
from graftlab.config import read_yaml

TABLE = read_yaml(Path(__file__).with_name("mistakes.yaml"))
FIELDS = ("exit", "kind", "at", "says")
USAGE = "usage"
"""What the table calls the kind of errors that the command line itself raises: they have no problems."""
COMMON = {
    "backbone": "{kind: tiny}",
    "method": "{name: lora, rank: 4}",
    "training": "{epochs: 1, batch_size: 4}",
}
FILES = {
    "classes": {
        **COMMON,
        "task": "{kind: classification, files: {train: rows.csv, test: tests.csv}, "
        "columns: {text: subject, label: queue}}",
    },
    "texts": {
        **COMMON,
        "task": "{kind: generation, files: {train: qa.jsonl}, prompt: '{question}', completion: '{answer}'}",
    },
    "study": {"base": "run.yaml", "methods": "[lora, head]", "seeds": "[0, 1]"},
    "search": {
        "base": "run.yaml",
        "space": "{training.learning_rate: {float: [1e-4, 1e-2], log: true}}",
        "trials": "2",
    },
}
WORDS = (("late", "billing"), ("down", "tech"), ("lost", "billing"), ("slow", "tech"))
ROWS = "".join(f"ticket {i} is {WORDS[i % 4][0]},{WORDS[i % 4][1]}\n" for i in range(40))
TURNS = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "x"}]
FINISHED = TABLE.pop("finished")
CASES = [(group, row) for group, rows in TABLE.items() for row in rows]


def named(case: tuple[str, dict[str, Any]]) -> str:
    group, row = case
    key = next(iter(row))
    return f"{group}-{key}-{row[key]}"[:70]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a run file that is right, and its data."""
    (tmp_path / "rows.csv").write_text(f"subject,queue\n{ROWS}")
    (tmp_path / "tests.csv").write_text(
        "subject,queue\none more,billing\nand another,tech\nthird,tech\n"
    )
    rows = [{"question": f"q {i}?", "answer": f"a {i}", "messages": TURNS} for i in range(40)]
    (tmp_path / "qa.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    write(tmp_path / "run.yaml", "classes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOT_SET_AT_ALL", raising=False)
    return tmp_path


def write(path: Path, group: str, **changes: str | None) -> None:
    lines = {**FILES[group], **changes}
    path.write_text("".join(f"{k}: {v}\n" for k, v in lines.items() if v is not None), "utf-8")


def command(folder: Path, group: str, row: dict[str, Any]) -> list[str]:
    """Write the file of a row, and return the command that is to refuse it."""
    key = next(iter(row))
    if group == "commands":
        return shlex.split(row[key])
    if group == "study":
        write(folder / "study.yaml", "study", **{key: row[key]})
        return ["compare", "study.yaml", "--out", "study"]
    if group == "search":
        write(folder / "search.yaml", "search", **{key: row[key]})
        return ["tune", "search.yaml", "--out", "search"]
    if group == "whole":
        (folder / "run.yaml").write_bytes(row[key].encode("latin-1"))
    else:
        write(folder / "run.yaml", group, **{key: row[key]})
    return ["check", "run.yaml"]


@pytest.mark.quick("study-*", "texts-*", "commands-command-init*")
@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_mistake_is_answered_at_its_place_with_what_to_do(folder, case):
    group, row = case
    check(folder, command(folder, group, row), row)
    assert not (folder / group).exists()  # where the command would write


def check(folder: Path, typed: list[str], row: dict[str, Any]) -> None:
    """Check how a command is answered."""
    result = CliRunner().invoke(cli.app, [*typed, "--json"])
    assert isinstance(result.exception, SystemExit), result.exception
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == error["exit_code"] == row.get("exit", 2)
    for name in row.get("says", ()):
        assert name in error["message"]
    if row["kind"] == USAGE:
        assert "problems" not in error
        return
    first = error["problems"][0]
    assert first["kind"] == row["kind"]
    if at := row.get("at"):
        option = (first["argument"] or "").split(" ")[0]
        file = (first["file"] or "").removeprefix(f"{folder}/")
        assert at in (first["key"], option, file)
    if first["file"] and first["key"] and key_stands_there(folder, first):
        assert first["line"] is not None


def key_stands_there(folder: Path, problem: dict[str, Any]) -> bool:
    """Return whether the section of a problem's key is in the file that it names."""
    top = problem["key"].partition(".")[0]
    return any(
        line.startswith(f"{top}:") for line in (folder / problem["file"]).read_text().splitlines()
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs of all conditions."""
    folder = tmp_path_factory.mktemp("runs")
    played_with.make(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("row", FINISHED, ids=lambda row: row["command"][:70])
def test_a_mistake_with_a_run_is_answered_at_its_place_with_what_to_do(runs, row, monkeypatch):
    """Slow: ten runs are carried out first, and the model is loaded for some of the answers."""
    monkeypatch.chdir(runs)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    check(runs, shlex.split(row["command"]), row)


def test_the_table_is_as_large_as_was_asked_for():
    assert len(CASES) >= 200
    assert len({row["command"] for row in FINISHED}) == len(FINISHED) >= 60
    rows = [
        tuple(sorted((k, str(v)) for k, v in row.items() if k not in FIELDS)) for _, row in CASES
    ]
    assert len(set(zip((group for group, _ in CASES), rows, strict=True))) == len(CASES)
