"""The Language Model Evaluation Harness asked about a finished run, with a task over local files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import graftlab
from graftlab import cli, config, inference
from graftlab.errors import Argument, ConfigError, DataError
from graftlab.inference import harness

pytestmark = pytest.mark.slow  # the harness takes ten seconds to import
pytest.importorskip("lm_eval", reason="needs the extra `harness`")

TASK = """
task: local_questions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: "{{{{['A', 'B', 'C'].index(label)}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


def rows(split: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"{split} {'so ' * (i % 5)}{i}?",
            "choices": ["no", "yes " + "very " * (i % 3), f"perhaps {i}"],
            "label": "ABC"[(i * 7) % 3],
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    for split, count in (("train", 16), ("validation", 4), ("test", 24)):
        lines = (json.dumps(row) + "\n" for row in rows(split, count))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "local_questions.yaml").write_text(
        TASK.format(file=folder / "test.jsonl"), encoding="utf-8"
    )
    return folder


def finished(folder: Path, name: str, method: dict[str, Any], **task: Any) -> inference.Adapted:
    settings = {
        "name": name,
        "backbone": {"kind": "tiny", "max_length": 96},
        "task": {
            "kind": "multiple_choice",
            "data_dir": str(folder),
            "labels": ["A", "B", "C"],
            **task,
        },
        "method": method,
        "training": {"max_steps": 2, "batch_size": 8, "learning_rate": 0.01},
        "paths": {"runs": str(folder / "runs"), "cache": str(folder / "cache")},
    }
    path = folder / f"{name}.yaml"
    path.write_text(config.dump(settings), encoding="utf-8")
    return inference.load(graftlab.run(path).path)


@pytest.fixture(scope="module")
def adapted(folder: Path) -> inference.Adapted:
    return finished(folder, "again", {"name": "lora"}, form="likelihood")


@pytest.mark.parametrize("method", ["lora", "prompt", "prefix"])
def test_the_harness_and_the_task_itself_agree(folder: Path, method: str) -> None:
    """Also where virtual tokens stand before the text."""
    adapted = finished(folder, method, {"name": method}, form="likelihood")
    _, scores = adapted.evaluate("test")
    options = harness.Options(("local_questions",), folder=folder / "tasks")
    found = harness.evaluate(adapted, options, batch_size=4)
    assert found["results"]["local_questions"]["acc,none"] == pytest.approx(
        scores["accuracy"].value
    )
    assert found["samples"] == {"local_questions": 24}
    json.dumps(found)


def test_fewer_questions_and_examples_in_front(folder: Path, adapted: inference.Adapted) -> None:
    options = harness.Options(("local_questions",), 1, 5, folder / "tasks")
    found = harness.evaluate(adapted, options, batch_size=4)
    assert found["samples"] == {"local_questions": 5}
    assert found["fewshot"] == {"local_questions": 1}


def test_what_cannot_be_asked_says_why(folder: Path, adapted: inference.Adapted) -> None:
    def ask(model: inference.Adapted, *tasks: str, **options: Any) -> None:
        harness.evaluate(model, harness.Options(tasks, **options), 4)

    with pytest.raises(ConfigError, match=r"'hellaswagg'.*'hellaswag'"):
        ask(adapted, "hellaswagg")
    with pytest.raises(ConfigError, match="Such as: local_questions"):
        ask(adapted, "local", folder=folder / "tasks")
    with pytest.raises(ConfigError) as caught:
        ask(adapted, "local", folder=folder / "none")
    assert caught.value.problems[0].place.argument == Argument("folder", str(folder / "none"))
    (folder / "tasks" / "gone.yaml").write_text(
        TASK.format(file=folder / "gone.jsonl").replace("local_questions", "gone"), encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"gone cannot be had.*gone\.jsonl"):
        ask(adapted, "gone", folder=folder / "tasks")
    classes = finished(folder, "classes", {"name": "lora"})
    with pytest.raises(ConfigError, match="puts out classes"):
        ask(classes, "local_questions", folder=folder / "tasks")


def test_the_command_prints_and_keeps_what_the_harness_found(
    folder: Path, adapted: inference.Adapted
) -> None:
    asked = ["evaluate", str(adapted.run.path), "--harness", "local_questions", "--limit", "6"]
    result = CliRunner().invoke(cli.app, [*asked, "--harness-tasks", str(folder / "tasks")])
    assert result.exit_code == 0, result.output
    assert re.search(r"local_questions  acc  0\.\d{4} ± 0\.\d{4}\n", result.stdout)
    kept = json.loads((adapted.run.path / "harness/local_questions-first6.json").read_text())
    assert kept["samples"] == {"local_questions": 6}
    own = "tasks of its own"
    for wrong, why in (
        (["--task", "gsm8k"], own),
        (["--split", "validation"], own),
        (["--harness="], "of --harness"),
    ):
        found = CliRunner().invoke(cli.app, [*asked, *wrong])
        assert found.exit_code == 2
        assert why in " ".join(found.output.split())
