"""Whole runs of a mixture: figures of each task, killed and gone on with, used without the data."""

import json
import random
import shutil
from pathlib import Path

import pytest

from graftlab import config, inference, runfile
from graftlab.errors import ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.study.rows import first_metric
from graftlab.testing.resume import OPTIONS, in_child, killed_after, outcome

RUN = """
name: mixed
backbone: {{kind: tiny, width: 16, layers: 1, max_length: 64, dropout: 0.1}}
task:
  kind: mixture
  data_dir: {folder}
  each: {{kind: classification}}
  tasks: [{{as: mood}}, {{as: size}}]
  weights: [1, 2]
method: {{name: lora, rank: 2}}
paths: {{runs: {folder}/runs}}
training:
  max_steps: 12
  batch_size: 8
  micro_batch_size: 4
  learning_rate: 0.01
  logging_every: 2
  evaluate_every: 4
  save_every: 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with two tasks of different sizes."""
    made = tmp_path_factory.mktemp("mixture")
    draw = random.Random(0)
    for name, labels, size in (("mood", "ab", 30), ("size", "xyz", 12)):
        (made / name).mkdir()
        for split, count in (("train", size), ("validation", 6), ("test", 6)):
            lines = [
                f"{name} {split} {i}{' so' * draw.randint(0, 8)},{labels[i % len(labels)]}"
                for i in range(count)
            ]
            (made / name / f"{split}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return made


def run_file(folder: Path, *changes: str) -> runfile.RunFile:
    path = folder / "mixed.yaml"
    path.write_text(RUN.format(folder=folder))
    return runfile.resolve(config.read(path, changes))


@pytest.fixture(scope="module")
def whole(folder):
    return session.run(run_file(folder), folder / "whole", options=OPTIONS)


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(folder, whole):
    """A kill within a logging interval, so that the tasks' sums are part of what is restored."""
    path = folder / "killed"
    assert killed_after(2, lambda: session.run(run_file(folder), path, options=OPTIONS))
    for step in (5, 11):
        assert killed_after(step, lambda: session.resume(path, OPTIONS))
    assert in_child(lambda: session.resume(path, OPTIONS)) == 0
    assert outcome(Run(path)) == outcome(whole)


def test_each_task_has_its_loss_its_metrics_and_its_part_of_the_gradient(whole):
    lines = whole.read_metrics()
    logged = [line for line in lines if "loss" in line]
    assert len(logged) == 6
    for line in logged:
        assert {
            f"{task}/{what}" for task in ("mood", "size") for what in ("loss", "gradient_norm")
        } <= set(line)
        assert (
            min(line["mood/loss"], line["size/loss"])
            <= line["loss"]
            <= max(line["mood/loss"], line["size/loss"])
        )
        # the parts add up to the whole: no side of a triangle is longer than the others together
        sides = sorted(
            (line["gradient_norm"], line["mood/gradient_norm"], line["size/gradient_norm"])
        )
        assert sides[2] <= sides[0] + sides[1] + 1e-6
    assert "validation/size/accuracy" in next(line for line in lines if "validation/mean" in line)
    result = whole.read_result()
    scores = result["metrics"]["test"]
    assert scores["mean"]["value"] == pytest.approx(
        (scores["mood/accuracy"]["value"] + scores["size/accuracy"]["value"]) / 2
    )
    assert result["selected_by"] == "mean"
    assert first_metric([result]) == ("mean", True)
    rows = [json.loads(line) for line in whole.predictions("test").read_text().splitlines()]
    assert {row["task"] for row in rows} == {"mood", "size"}
    assert files.read_json(whole.environment)["data"]["draws"] == {"mood": 14, "size": 28}


@pytest.mark.slow
def test_looking_at_each_tasks_gradient_changes_no_bit_of_the_training(folder, whole):
    rare = session.run(
        run_file(folder, "training.logging_every=0"), folder / "rare", options=OPTIONS
    )
    name = "adapter_model.safetensors"
    assert (rare.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


@pytest.mark.slow
def test_the_part_of_a_task_is_the_gradient_of_its_examples_alone(folder, monkeypatch):
    """Of the first step, taken again with the other task's loss out of it."""
    from graftlab.tasks.mixture.task import MixtureTask

    one = [
        "training.max_steps=1",
        "training.logging_every=1",
        "backbone.dropout=0",
        "training.clip_norm=0",
    ]
    both = session.run(run_file(folder, *one), folder / "both", options=OPTIONS).read_metrics()[1]
    real = MixtureTask.loss
    for name in ("mood", "size"):
        own = f"task/{name}"
        monkeypatch.setattr(
            MixtureTask,
            "loss",
            lambda self, *given, own=own: real(self, *given) * (own in given[1]),
        )
        alone = session.run(
            run_file(folder, *one), folder / f"{name}-alone", options=OPTIONS
        ).read_metrics()[1]
        assert both[f"{name}/gradient_norm"] == pytest.approx(alone["gradient_norm"], rel=1e-4)


@pytest.mark.slow
def test_a_run_is_used_and_scored_where_its_data_are_gone(folder, whole):
    elsewhere = folder / "moved"
    shutil.copytree(whole.path, elsewhere)
    adapted = inference.load(elsewhere, "cpu")
    _, scores = adapted.evaluate("test")
    before = whole.read_result()["metrics"]["test"]
    for name, score in scores.items():
        assert score.value == pytest.approx(before[name]["value"])
    hidden = [(folder / name, folder / f"{name}-hidden") for name in ("mood", "size")]
    for path, other in hidden:
        path.rename(other)
    try:
        adapted = inference.load(elsewhere, "cpu")
        answers = adapted.predict([{"task": "size", "text": "so"}, "mood: so"])
        assert adapted.predict(["so"], task="size")[0]["probabilities"] == pytest.approx(
            answers[0]["probabilities"], abs=1e-6
        )
    finally:
        for path, other in hidden:
            other.rename(path)
    assert [set(answer["probabilities"]) for answer in answers] == [{"x", "y", "z"}, {"a", "b"}]
    assert [answer["task"] for answer in answers] == ["size", "mood"]
    with pytest.raises(ConfigError, match="unknown task 'moood'"):
        adapted.predict(["so"], task="moood")


def test_a_task_that_would_never_be_drawn_is_refused(folder):
    file = run_file(folder, "task.weights=[10000, 1]")
    with pytest.raises(ConfigError, match="'size'"):
        session.run(file, folder / "never", options=OPTIONS)
