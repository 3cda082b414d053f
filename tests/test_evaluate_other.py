"""A run scored on a task that it was not trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
from finished_runs import LABELS, finish
from typer.testing import CliRunner

from graftlab import cli, config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return finish(tmp_path_factory.mktemp("other"), {"name": "lora"})


def evaluate(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


def task_file(folder: Path, **fields: Any) -> Path:
    """Write a run file with a task that has nothing to train on."""
    data = folder / "data"
    data.mkdir()
    rows = [{"words": f"fine glad {i}", "mood": LABELS[i % 3]} for i in range(6)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "test.jsonl").write_text(text, encoding="utf-8")
    section = {
        "kind": "classification",
        "data_dir": str(data),
        "columns": {"text": "words", "label": "mood"},
        "labels": list(LABELS),
        **fields,
    }
    (folder / "task.yaml").write_text(config.dump({"task": section}), encoding="utf-8")
    return folder / "task.yaml"


def test_another_task_is_scored_from_its_file(run: Any, tmp_path: Path) -> None:
    result = evaluate(run.path, "--task", task_file(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    kept = Path(found["predictions"])
    assert kept.name == "classification-test.jsonl"
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert len(rows) == 6
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right / 6)


def test_its_keys_can_be_set(run: Any, tmp_path: Path) -> None:
    task = task_file(tmp_path)
    found = evaluate(run.path, "--task", task, "--set", "task.max_test_samples=4", "--json")
    rows = Path(json.loads(found.stdout)["predictions"]).read_text(encoding="utf-8").splitlines()
    assert len(rows) in (4, 6)  # the file of the six may be there: then these stand beside it


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "sst3"], "'sst3'"),
        (["--set", "task.max_length=8"], "--set is for the task that --task names"),
        (["--fewshot", "2"], "options of --harness"),
    ],
)
def test_what_is_meant_has_to_be_there(run: Any, arguments: list[str], said: str) -> None:
    result = evaluate(run.path, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_a_task_that_wants_other_classes_is_refused(run: Any, tmp_path: Path) -> None:
    result = evaluate(run.path, "--task", task_file(tmp_path, labels=[*LABELS, "other"]))
    assert result.exit_code == 2
    assert "wants the classes bad, good, naïve, other, but" in " ".join(result.output.split())
