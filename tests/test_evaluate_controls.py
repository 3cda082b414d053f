"""`graftlab evaluate RUN --controls`: scores beside those of other vectors, kept in the run."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_runs import finish
from scipy import stats
from typer.testing import CliRunner

import graftlab
from graftlab import cli, config
from graftlab.data.vectors import store
from graftlab.rundir.run import Run
from graftlab.tasks.elm import tree

WIDTH = 6
COUNTS = {"train": 8, "validation": 3, "test": 7}
WAYS = ["vectors", "shuffled", "random", "zero", "prompt", "text"]
METRICS = ["exact_match", "length_ratio", "token_accuracy"]


def write_data(folder: Path) -> None:
    """Write texts that are asked for a category, and every other one for two summaries."""
    for seed, (split, count) in enumerate(COUNTS.items()):
        (folder / split).mkdir(parents=True)
        drawn = np.random.default_rng(seed).normal(size=(count, WIDTH))
        store.write(folder / split / tree.VECTORS, drawn)
        rows = [
            {"task_type": kind, "embedding_file_idx": i, "response": f"{kind} {i % 3} {n}"}
            for i in range(count)
            for kind, times in (("category", 1), ("summary", 2 * (i % 2)))
            for n in range(times)
        ]
        lines = {tree.ROWS: rows, tree.TEXTS: [{"text": f"text {i}"} for i in range(count)]}
        for name, of in lines.items():
            text = "".join(json.dumps(row) + "\n" for row in of)
            (folder / split / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("controls")
    write_data(folder / "vectors")
    fields = {
        "backbone": {"kind": "tiny", "modality": "text", "max_length": 300, "width": 16},
        "task": {
            "kind": "elm",
            "data_dir": str(folder / "vectors"),
            "metrics": METRICS,
            "generation": {"max_new_tokens": 4},
        },
        "method": {"name": "elm", "hidden": 8},
        "training": {"max_steps": 4, "batch_size": 8, "learning_rate": 0.01},
    }
    (folder / "run.yaml").write_text(config.dump(fields), encoding="utf-8")
    graftlab.run(folder / "run.yaml", out=folder / "run")
    return Run(folder / "run")


def evaluate(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


def controls(run: Run, *more: Any) -> dict[str, Any]:
    result = evaluate(run.path, "--controls", "--json", *more)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def found(run: Run) -> dict[str, Any]:
    return controls(run)


def predictions(found: dict[str, Any], way: str) -> list[dict[str, Any]]:
    path = Path(found["folder"]) / "predictions" / f"{way}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def row(found: dict[str, Any], kind: str, metric: str, way: str) -> dict[str, Any]:
    [one] = [
        row
        for row in found["rows"]
        if (row["task_type"], row["metric"], row["control"]) == (kind, metric, way)
    ]
    return one


def test_every_score_of_every_way_stands_in_the_table(found: dict[str, Any]) -> None:
    for kind, examples, sources in (("all", 13, 7), ("category", 7, 7), ("summary", 6, 3)):
        for metric in ("loss", *METRICS):
            rows = [row(found, kind, metric, way) for way in WAYS]
            assert [(one["examples"], one["sources"]) for one in rows] == [(examples, sources)] * 6
            assert all(one["value"] is not None for one in rows)
            assert rows[0]["difference"] is None
            assert all(one["difference"] is not None for one in rows[1:])


def test_a_difference_is_the_paired_t_where_each_text_has_one_row(found: dict[str, Any]) -> None:
    lengths = [
        [
            len(r["prediction"].split()) / 3
            for r in predictions(found, way)
            if r["task_type"] == "category"
        ]
        for way in ("prompt", "vectors")
    ]
    one = row(found, "category", "length_ratio", "prompt")
    assert one["value"] == pytest.approx(np.mean(lengths[0]))
    assert one["difference"] == pytest.approx(np.mean(lengths[0]) - np.mean(lengths[1]))
    if np.var(np.subtract(*lengths)):
        expected = stats.ttest_rel(*lengths).confidence_interval(0.95)
        assert (one["low"], one["high"]) == pytest.approx((expected.low, expected.high))


def test_a_loss_is_that_of_all_trained_tokens(found: dict[str, Any]) -> None:
    rows = [one for one in predictions(found, "zero") if one["task_type"] == "summary"]
    expected = sum(one["loss"] for one in rows) / sum(one["count"] for one in rows)
    assert row(found, "summary", "loss", "zero")["value"] == pytest.approx(expected)


def test_table_and_figure_are_written_and_the_own_predictions_are_the_runs(
    run: Run, found: dict[str, Any]
) -> None:
    folder = Path(found["folder"])
    assert json.loads((folder / "controls.json").read_text())["rows"] == found["rows"]
    with (folder / "controls.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [one["metric"] for one in table] == [one["metric"] for one in found["rows"]]
    assert all(Path(path).is_file() for path in found["figures"])
    own = run.predictions("test").read_text(encoding="utf-8").splitlines()
    for one, other in zip(map(json.loads, own), predictions(found, "vectors"), strict=True):
        assert one["prediction"] == other["prediction"]


@pytest.mark.slow
def test_a_killed_call_goes_on_where_it_was(run: Run) -> None:
    first = controls(run)
    (Path(first["folder"]) / "predictions" / "random.jsonl").unlink()
    again = controls(run)
    assert again["again"] == [way for way in WAYS if way != "random"]
    assert again["rows"] == first["rows"]


@pytest.mark.slow
def test_other_settings_begin_anew(run: Run) -> None:
    controls(run)
    assert controls(run, "--batch-size", 3)["again"] == []
    controls(run)


@pytest.mark.slow
def test_other_texts_are_asked_again_and_nothing_else(run: Run) -> None:
    controls(run)
    texts = run.path.parent / "vectors" / "test" / tree.TEXTS
    before = texts.read_text(encoding="utf-8")
    texts.write_text(before.replace("text 1", "text one"), encoding="utf-8")
    assert controls(run)["again"] == [way for way in WAYS if way != "text"]
    texts.write_text(before, encoding="utf-8")
    assert controls(run)["again"] == [way for way in WAYS if way != "text"]


@pytest.mark.slow
def test_validation_has_a_table_of_its_own(run: Run) -> None:
    found = controls(run, "--split", "validation")
    assert Path(found["folder"]).name == "controls-validation"
    assert row(found, "all", "exact_match", "vectors")["value"] is not None


@pytest.mark.slow
def test_a_terminal_has_a_line_for_each_score(run: Run) -> None:
    said = evaluate(run.path, "--controls").output
    for name in ("category: 7 examples of 7 texts", *WAYS, "loss", *METRICS):
        assert name in said


@pytest.mark.quick("more0")
@pytest.mark.parametrize(
    "more", [("--errors", "3"), ("--harness", "arc_easy"), ("--split", "train")]
)
def test_what_does_not_go_with_controls_is_refused(run: Run, more: tuple[str, ...]) -> None:
    result = evaluate(run.path, "--controls", *more)
    assert result.exit_code == 2, result.output


@pytest.mark.slow
def test_a_task_without_vectors_has_no_controls(tmp_path: Path) -> None:
    other = finish(tmp_path, {"name": "lora"})
    result = evaluate(other.path, "--controls")
    assert result.exit_code == 2
    assert "vectors" in result.output
