"""Metrics of texts in a run: labels that they cannot read are found early, and answers are explained."""

import importlib.util
import json

import pytest

from graftlab import config, runfile
from graftlab.errors import ConfigError, DataError
from graftlab.runs import session
from graftlab.study.rows import first_metric


def carry_out(folder, answer, metrics):
    for split in ("train", "test"):
        rows = [{"question": f"{split} {i}?", "answer": answer} for i in range(4)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "task": {
            "kind": "generation",
            "data_dir": str(folder),
            "prompt": "{question}",
            "completion": " yes",
            "columns": {"reference": "answer"},
            "metrics": metrics,
            "generation": {"max_new_tokens": 4},
        },
        "backbone": {"kind": "tiny", "width": 16},
        "method": {"name": "lora", "rank": 2},
        "training": {"max_steps": 1, "batch_size": 2},
    }
    (folder / "run.yaml").write_text(config.dump(values))
    file = runfile.resolve(config.read(str(folder / "run.yaml")))
    return session.run(file, folder / "run", options=session.Options(quiet=True))


def test_a_reference_that_a_metric_cannot_read_stops_the_run_before_its_training(tmp_path):
    with pytest.raises(DataError, match="'no number"):
        carry_out(tmp_path, "no number at all", ["gsm8k_accuracy"])
    assert not (tmp_path / "run" / "adapter").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_predictions_say_how_their_answers_were_found(tmp_path):
    run = carry_out(tmp_path, "so it is\n#### 5", ["gsm8k_accuracy"])
    scores = run.read_result()["metrics"]["test"]["gsm8k_accuracy"]
    rows = [json.loads(line) for line in run.predictions("test").open()]
    explained = [row["explained"]["gsm8k_accuracy"] for row in rows]
    fired = [found["rule"][0] for found in explained]
    assert {rule: n for rule, n in scores["details"]["rules"].items() if n} == {
        rule: fired.count(rule) for rule in fired
    }
    assert scores["value"] == sum(found["right"][0] for found in explained) / 4
    assert all("explained" not in json.loads(r) for r in run.predictions("validation").open())


def test_a_package_that_is_missing_is_named_before_anything_is_loaded(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "sacrebleu" else found(name, *a),
    )
    with pytest.raises(ConfigError, match=r"task\.metrics: bleu needs .*'graftlab\[text\]'"):
        carry_out(tmp_path, "a", ["bleu"])


def test_a_metric_of_written_texts_that_comes_first_ranks(tmp_path):
    run = carry_out(tmp_path, "so it is\n#### 5", ["gsm8k_accuracy", "token_accuracy"])
    result = run.read_result()
    assert list(result["metrics"]["test"]) == ["gsm8k_accuracy", "token_accuracy", "loss"]
    assert list(result["metrics"]["validation"]) == ["token_accuracy", "loss"]
    assert first_metric([result]) == ("gsm8k_accuracy", True)
