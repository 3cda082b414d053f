"""Predictions by class beside scikit-learn's figures; weights of classes; class names that travel."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_runs import LABELS, finish, make_data
from sklearn import metrics as sklearn_metrics
from sklearn.utils.class_weight import compute_class_weight
from test_report import Read
from typer.testing import CliRunner

from graftlab import cli, config, report, runfile
from graftlab.backbones import tiny
from graftlab.contracts import Data, Problem
from graftlab.errors import ConfigError
from graftlab.inference import answers
from graftlab.rundir.run import Run
from graftlab.runs import class_report, found_labels
from graftlab.tasks import classification

THREE = Problem("classes", LABELS)


def invoke(*arguments):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def drawn(seed, count=200, classes=3):
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.ones(classes), count)
    return [
        {"label": int(label), "prediction": int(p.argmax()), "probabilities": p.tolist()}
        for label, p in zip(draw.integers(0, classes, count), shares, strict=True)
    ]


def never_predicted(rows):
    return [row if row["prediction"] != 2 else {**row, "prediction": 0} for row in rows]


@pytest.mark.parametrize("rows", [drawn(0), drawn(1, 7), never_predicted(drawn(2))])
def test_figures_of_classes_and_their_means_are_scikit_learns(rows):
    [report] = class_report.reports(rows, THREE)
    true, said = [row["label"] for row in rows], [row["prediction"] for row in rows]
    numbers = sorted({*true, *said})
    found = sklearn_metrics.precision_recall_fscore_support(
        true, said, labels=numbers, zero_division=0
    )
    for number, *figures in zip(numbers, *found, strict=True):
        own = report["classes"][number]
        mine = (own["precision"] or 0, own["recall"] or 0, own["f1"] or 0, own["examples"])
        assert mine == pytest.approx(figures)
    for average in ("macro", "weighted"):
        *expected, _ = sklearn_metrics.precision_recall_fscore_support(
            true, said, average=average, zero_division=0
        )
        assert [*report[average].values()] == pytest.approx(expected)
    matrix = np.zeros((3, 3), dtype=int)
    for one, other, count in report["confusion"]:
        matrix[one, other] = count
    expected = sklearn_metrics.confusion_matrix(true, said, labels=[0, 1, 2])
    assert matrix.tolist() == expected.tolist()


def test_a_class_that_is_never_predicted_has_no_precision():
    [report] = class_report.reports(never_predicted(drawn(2)), THREE)
    assert report["classes"][2]["precision"] is None
    assert report["classes"][2]["recall"] == 0


@pytest.mark.parametrize(
    ("confidence", "right", "expected"),
    [
        ([0.9] * 10, 9, 0.0),
        ([0.9] * 10, 5, 0.4),
        ([1.0] * 4, 4, 0.0),
        ([0.6, 0.6, 0.9, 0.9], 4, 0.25),
    ],
)
def test_calibration_is_the_mean_distance_of_confidence_and_accuracy(confidence, right, expected):
    rows = [
        {"label": 0 if n < right else 1, "prediction": 0, "probabilities": [p, 1 - p]}
        for n, p in enumerate(confidence)
    ]
    assert class_report.calibration(rows)["expected_error"] == pytest.approx(expected)


def test_probabilities_that_are_the_truth_are_calibrated():
    draw, rows = random.Random(0), []
    for _ in range(20_000):
        p = draw.uniform(0.5, 1)
        rows.append(
            {"label": int(draw.random() >= p), "prediction": 0, "probabilities": [p, 1 - p]}
        )
    assert class_report.calibration(rows)["expected_error"] < 0.02


def test_one_class_for_all_is_a_note_and_a_split_of_one_class_is_none():
    rows = [{**row, "prediction": 1} for row in drawn(3)]
    [note] = class_report.warnings({"test": class_report.reports(rows, THREE)})
    assert (note.kind, note.fields["label"], note.fields["examples"]) == (
        "one_class_predicted", LABELS[1], 200,
    )  # fmt: skip
    alike = [{**row, "label": 1} for row in rows]
    assert class_report.warnings({"test": class_report.reports(alike, THREE)}) == []
    assert class_report.warnings({"test": class_report.reports(drawn(4), THREE)}) == []


def test_scores_and_texts_have_no_classes_and_a_mixture_has_a_report_a_task():
    assert class_report.reports([{"label": 0.5, "prediction": 0.4}], Problem("regression")) == []
    both = Problem("classes", LABELS, (("a", THREE), ("b", Problem("classes", ("no", "yes")))))
    rows = [{**row, "task": "a"} for row in drawn(5)]
    rows += [{**row, "task": "b"} for row in drawn(6, classes=2)]
    assert [report["task"] for report in class_report.reports(rows, both)] == ["a", "b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classes")


@pytest.fixture(scope="module")
def run(folder):
    return finish(folder, {"name": "lora", "rank": 2})


def test_a_result_has_the_figures_of_what_was_predicted(run):
    result = run.read_result()
    for split in ("validation", "test"):
        [report] = result["classes"][split]
        scores = result["metrics"][split]
        assert report["macro"]["f1"] == pytest.approx(scores["macro_f1"]["value"])
        assert report["weighted"]["recall"] == pytest.approx(scores["accuracy"]["value"])
        assert [one["name"] for one in report["classes"]] == list(LABELS)


def test_figures_by_class_are_shown_and_on_the_page(run, tmp_path):
    error = run.read_result()["classes"]["test"][0]["calibration"]["expected_error"]
    assert f"{error:.4f}" in invoke("show", run.path)
    text = Read(report.html(run.path, {})).text
    assert f"{error:.4f}" in text
    assert all(label in text for label in LABELS)


def test_an_older_run_is_shown_by_class_too(run, tmp_path):
    import shutil

    old = Run(tmp_path / "old")
    shutil.copytree(run.path, old.path)
    result = json.loads(old.result.read_text())
    expected = result.pop("classes")
    old.result.write_text(json.dumps(result))
    (old.path / "manifest.json").unlink()
    assert json.loads(invoke("show", old.path, "--json"))["classes"] == expected


@pytest.mark.slow
def test_class_names_that_were_found_go_where_the_run_goes(run, folder):
    written = config.read_yaml(run.config)
    assert written["task"]["labels"] == list(LABELS)
    card = (run.adapter / "README.md").read_text(encoding="utf-8")
    assert [line.split("|")[2].strip() for line in card.splitlines()[-3:]] == list(LABELS)
    whole = finish(folder, {"name": "full"})
    named = json.loads((whole.adapter / "config.json").read_text())["id2label"]
    assert named == {str(n): label for n, label in enumerate(LABELS)}


def test_without_the_names_that_were_found_a_config_is_what_its_file_said(run):
    before = found_labels.without(config.read_yaml(run.config), run)
    assert before["task"]["labels"] is None
    assert before == runfile.resolve(config.read(run.path.parent.parent / "lora.yaml")).resolved


@pytest.mark.slow
def test_names_that_a_file_gives_stay_as_they_are(folder):
    labels = list(reversed(LABELS))
    given = finish(folder, {"name": "head"}, name="given", task={"labels": labels})
    assert config.read_yaml(given.config)["task"]["labels"] == labels
    assert "found" not in json.loads(given.environment.read_text())


@pytest.mark.slow
def test_a_run_again_from_its_own_config_is_the_same(run, tmp_path):
    import graftlab

    again = graftlab.run(run.config, out=tmp_path / "again")
    weights = [(r.adapter / "adapter_model.safetensors").read_bytes() for r in (run, again)]
    assert weights[0] == weights[1]


# predictions in files


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The same inputs, answered into a file of each format."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "in.csv").write_text(
        'id;text;label\n7;fine glad;x\n8;"poor; sad";y\n', encoding="utf-8"
    )
    for ending in ("csv", "jsonl", "parquet"):
        invoke(
            "predict", run.path, "--input", folder / "in.csv", "--output", folder / f"out.{ending}"
        )
    return folder


def test_a_table_of_predictions_has_the_inputs_own_columns_and_what_is_predicted(written):
    answers = read_jsonl(written / "out.jsonl")
    with (written / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [row["row"] for row in rows] == ["1", "2"]
    assert [(row["id"], row["text"], row["label"]) for row in rows] == [
        ("7", "fine glad", "x"), ("8", "poor; sad", "y"),
    ]  # fmt: skip
    for row, answer in zip(rows, answers, strict=True):
        assert row["prediction"] == answer["name"] == LABELS[answer["label"]]
        assert float(row["probability"]) == max(answer["probabilities"].values())
        shares = {name: float(row[f"probability_{name}"]) for name in LABELS}
        assert shares == answer["probabilities"]


def test_lines_of_predictions_keep_what_they_had_and_have_their_inputs(written):
    first = read_jsonl(written / "out.jsonl")[0]
    assert (first["index"], first["row"]) == (0, 1)
    assert first["input"] == {"id": "7", "text": "fine glad", "label": "x"}


def test_parquet_holds_the_same_table_with_numbers(written):
    from pyarrow import parquet

    rows = parquet.read_table(written / "out.parquet").to_pylist()
    with (written / "out.csv").open(encoding="utf-8", newline="") as file:
        as_text = list(csv.DictReader(file, delimiter=";"))
    assert [{key: str(value) for key, value in row.items()} for row in rows] == as_text
    assert isinstance(rows[0]["probability"], float)


def test_a_column_of_the_input_with_a_name_of_ours_stands_apart(run, tmp_path):
    (tmp_path / "in.jsonl").write_text(
        '{"text": "fine", "prediction": "mine", "more": [1, {"a": 2}]}\n'
    )
    out = tmp_path / "out.csv"
    invoke("predict", run.path, "--input", tmp_path / "in.jsonl", "--output", out)
    [row] = csv.DictReader(out.open(encoding="utf-8", newline=""))
    assert row["input.prediction"] == "mine"
    assert row["prediction"] in LABELS
    assert json.loads(row["more"]) == [1, {"a": 2}]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"index": 3, "completion": "yes"}, "yes"),
        ({"index": 3, "completion": ["yes", "no"]}, ["yes", "no"]),
        ({"index": 3, "label": 0.25}, 0.25),
    ],
    ids=["a text", "several texts", "a score"],
)
def test_texts_and_scores_are_predictions_without_a_probability(answer, said):
    row = answers.flat(answer, {"prompt": "is it?"})
    assert row == {"row": 4, "prompt": "is it?", "prediction": said}


def test_of_a_mixture_each_row_has_its_task_and_the_classes_of_it(tmp_path):
    found = [
        {
            "index": 0,
            "task": "a",
            "label": 0,
            "name": "no",
            "probabilities": {"no": 0.75, "yes": 0.25},
        },
        {
            "index": 1,
            "task": "b",
            "label": 1,
            "name": "warm",
            "probabilities": {"cold": 0.5, "warm": 0.5},
        },
    ]
    answers.write(tmp_path / "out.csv", found, "so")
    rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8", newline="")))
    assert [(row["task"], row["prediction"], row["probability_no"]) for row in rows] == [
        ("a", "no", "0.75"), ("b", "warm", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "read_as"),
    [("cp1252", "utf-8-sig"), ("utf-8-sig", "utf-8-sig"), ("utf-8", "utf-8")],
)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_csv_goes_back_to_the_program_that_its_input_is_from(
    tmp_path, encoding, read_as, delimiter
):
    text = delimiter.join(["Nr", "Text"]) + "\r\n" + delimiter.join(["7", "zurück"]) + "\r\n"
    (tmp_path / "in.csv").write_bytes(text.encode(encoding))
    answers.write(tmp_path / "out.csv", [{"index": 0, "completion": "so"}], tmp_path / "in.csv")
    written = (tmp_path / "out.csv").read_bytes().decode(read_as)
    expected = ["row,Nr,Text,prediction", "1,7,zurück,so"]
    assert written.splitlines() == [line.replace(",", delimiter) for line in expected]


@pytest.mark.parametrize("name", ["out.txt", "out", "out.xlsx", "out.json"])
def test_an_ending_that_is_no_format_is_refused_before_the_model_is_loaded(tmp_path, name):
    with pytest.raises(ConfigError) as raised:
        answers.check(tmp_path / name)
    assert raised.value.problems[0].allowed == [".csv", ".jsonl", ".parquet"]


def test_the_worst_predictions_are_wrong_and_come_by_their_loss(run):
    scored = json.loads(invoke("evaluate", run.path, "--errors", 4, "--json"))
    predicted = read_jsonl(run.predictions("test"))
    wrong = sorted(
        (r for r in predicted if r["prediction"] != r["label"]), key=lambda r: -r["loss"]
    )
    assert [one["example"] for one in scored["worst"]] == [row["index"] + 1 for row in wrong[:4]]
    for one, row in zip(scored["worst"], wrong, strict=False):
        assert (one["label"], one["prediction"]) == (
            LABELS[row["label"]],
            LABELS[row["prediction"]],
        )
        assert f" test {row['index']}" in one["inputs"]["text"]
        file = Path(one["file"]).read_text(encoding="utf-8").splitlines()
        assert file[one["row"]].partition(",")[0] == one["inputs"]["text"]
    assert scored["classes"] == run.read_result()["classes"]["test"]
    assert f"test {wrong[0]['index']}" in invoke("evaluate", run.path, "--errors", 1)


# weights of classes


def bound(tmp_path, **fields):
    make_data(tmp_path / "data")
    files = {s: tmp_path / "data" / f"{s}.csv" for s in ("train", "validation", "test")}
    section = classification.Config(files=files, **fields)
    problem = classification.problem(section)
    rows = [
        {"index": n, "text": "so", "pair": None, "label": label}
        for n, label in enumerate([0] * 6 + [1] * 3 + [2])
    ]
    backbone = tiny.load(tiny.Config(max_length=96), problem, seed=0)
    return classification.bind(Data({"train": rows}, problem), backbone, section, 0), backbone.model


def test_balanced_weights_are_scikit_learns(tmp_path):
    task, _ = bound(tmp_path, class_weights="balanced")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=[0] * 6 + [1] * 3 + [2])
    assert task.class_weights.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("given", ["balanced", {"bad": 0.5, "naïve": 4}])
def test_a_weighted_loss_is_torchs_sum(tmp_path, given):
    task, model = bound(tmp_path, class_weights=given)
    batch = task.batch("train", range(10), None)
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    expected = torch.nn.functional.cross_entropy(
        logits, batch["labels"], weight=task.class_weights, reduction="sum"
    )
    torch.testing.assert_close(task.loss(model, batch), expected)


def test_losses_of_evaluations_are_without_weights(tmp_path):
    task, model = bound(tmp_path, class_weights={"bad": 10})
    batch = task.batch("train", range(10), None)
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
    found = torch.tensor([row["loss"] for row in task.predict(model, batch)])
    torch.testing.assert_close(found, expected)


def test_a_weight_of_no_class_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(ConfigError) as raised:
        bound(tmp_path, class_weights={"god": 2.0})
    [problem] = raised.value.problems
    assert (problem.kind, problem.given, problem.allowed) == ("unknown", "god", list(LABELS))


@pytest.mark.parametrize("fields", [{"class_weights": {"bad": 0}}, {"class_weights": "even"},
                                    {"class_weights": "balanced", "regression": True}])  # fmt: skip
def test_weights_that_mean_nothing_are_refused(tmp_path, fields):
    with pytest.raises(ValueError, match="class_weights"):
        classification.Config(data_dir=tmp_path, **fields)
