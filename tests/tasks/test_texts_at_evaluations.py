"""Texts that are written while a run trains: scored as at its end, on the same examples each time."""

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab import config, inference, runfile
from graftlab.backbones import tiny
from graftlab.config import Paths, merge
from graftlab.contracts import Problem, as_writer
from graftlab.errors import ConfigError
from graftlab.planning import advice
from graftlab.runs import evaluation, prediction, session
from graftlab.tasks import mixture
from graftlab.testing import examples
from graftlab.testing.resume import OPTIONS

CHOSEN = 3
RUN: dict[str, Any] = {
    "backbone": {"kind": "tiny", "width": 16, "layers": 1, "max_length": 48, "dropout": 0},
    "method": {"name": "full"},
    "task": {
        "kind": "generation",
        "prompt": "{q}:",
        "completion": "{a}",
        "metrics": [{"name": "rouge"}, "perplexity"],
        "generation": {"max_new_tokens": 4, "at_evaluations": CHOSEN},
    },
    "training": {
        "max_steps": 6, "batch_size": 4, "learning_rate": 0.02, "evaluate_every": 3, "save_every": 3,
        "keep_checkpoints": 9, "logging_every": 0,
    },
}  # fmt: skip


def file(folder: Path, changes: dict[str, Any] | None = None) -> runfile.RunFile:
    for split, count in {"train": 12, "validation": 8, "test": 2}.items():
        lines = ({"q": f"{split} {i}", "a": "ab"} for i in range(count))
        text = "".join(json.dumps(row) + "\n" for row in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    given = {"task": {"data_dir": str(folder)}, "paths": {"runs": str(folder / "runs")}}
    path = folder / "run.yaml"
    values = merge(merge(RUN, given), changes or {})
    path.write_text(config.dump(values), encoding="utf-8")
    return runfile.resolve(config.read(path))


def text_metric(file: runfile.RunFile) -> str:
    return next(name for name in file.task.config.metrics if name != "perplexity")


@pytest.mark.slow
def test_a_run_is_scored_by_what_it_writes_and_chosen_by_it(tmp_path: Path) -> None:
    """At each evaluation the scores are those that the kept step writes to the same three examples."""
    name = text_metric(file(tmp_path))
    resolved = file(tmp_path, {"training": {"best_by": name}})
    run = session.run(resolved, options=OPTIONS)
    lines = {row["step"]: row for row in run.read_metrics() if f"validation/{name}" in row}
    assert sorted(lines) == [3, 6]
    seen = set()
    for step, line in lines.items():
        adapted = inference.load(run.path, "cpu", step)
        task, _, rows = adapted.predictions("validation")
        writer = as_writer(task)
        assert writer is not None
        seen.add(tuple(writer.at_evaluations))
        written = prediction.predict(
            adapted.model, task, "validation", 4, only=writer.at_evaluations, writer=writer
        )
        assert [row["index"] for row in written] == list(writer.at_evaluations)
        assert evaluation.score(written, [name])[name].value == line[f"validation/{name}"]
        assert len(rows) == 8
        assert evaluation.mean_loss(rows) == line["validation/loss"]
    [chosen] = seen
    assert len(chosen) == CHOSEN
    assert set(chosen) < set(range(8))
    assert run.read_result()["selected_by"] == name


def test_a_choice_by_texts_that_nobody_writes_is_refused(tmp_path: Path) -> None:
    name = text_metric(file(tmp_path))
    without = {"generation": {"at_evaluations": None}}
    with pytest.raises(ConfigError) as error:
        file(tmp_path, {"task": without, "training": {"best_by": name}})
    assert error.value.problems[0].kind == "conflict"
    file(tmp_path, {"task": without, "training": {"best_by": "perplexity"}})


def test_answers_that_no_metric_reads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        file(tmp_path, {"task": {"metrics": ["perplexity"]}})


def test_a_plan_says_how_much_is_written(tmp_path: Path) -> None:
    resolved = file(tmp_path)
    [note] = advice.texts(resolved, validation=8, evaluations=2)
    assert note.fields == {"answers": 3, "evaluations": 2, "tokens": 3 * 2 * 4}
    [note] = advice.texts(resolved, validation=2, evaluations=5)
    assert note.fields["tokens"] == 2 * 5 * 4
    assert not list(
        advice.texts(file(tmp_path, {"task": {"generation": {"at_evaluations": None}}}), 8, 2)
    )


def test_of_a_mixture_each_task_writes_to_its_own(tmp_path: Path) -> None:
    section = examples.mixture_of_texts(tmp_path)
    writing = {
        "generation": {"max_new_tokens": 2, "at_evaluations": 2},
        "metrics": ("exact_match",),
    }
    parts = {}
    for name, part in section.parts.items():
        changed = part.config.model_dump(exclude_defaults=True) | (
            writing if name == "asked" else {}
        )
        parts[name] = mixture.Resolved(part.module, type(part.config).model_validate(changed))
    section = mixture.with_parts(section, parts)
    data = mixture.read(section, Paths(cache=tmp_path / "cache"), 0)
    backbone = tiny.load(tiny.Config(dropout=0, width=16), Problem("tokens"), 0)
    task: Any = mixture.bind(data, backbone, section, 0)
    assert len(task.at_evaluations) == 2
    rows = prediction.predict(
        backbone.model, task, "validation", 2, only=task.at_evaluations, writer=task
    )
    assert {row["task"] for row in rows} == {"asked"}
    assert all(isinstance(row["prediction"], str) for row in rows)
