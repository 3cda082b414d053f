"""A run on one screen, and what two runs do not share: figures by their closed forms."""

import json
import math
import random
import statistics

import pytest
from finished_runs import finish
from scipy import stats
from typer.testing import CliRunner

import graftlab
from graftlab import cli, config, runfile
from graftlab.commands import _run_screen
from graftlab.errors import CheckpointError
from graftlab.runs import difference, origin, paired
from graftlab.runs.summary import summary


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def rows(right, label=1):
    return [
        {"index": n, "label": label, "prediction": label if good else 0, "loss": float(not good)}
        for n, good in enumerate(right)
    ]


def test_the_interval_of_a_mean_is_that_of_a_paired_t_test():
    draw = random.Random(1)
    one, two = ([draw.random() < share for _ in range(40)] for share in (0.5, 0.8))
    gaps = [int(b) - int(a) for a, b in zip(one, two, strict=True)]
    half = stats.t.ppf(0.975, 39) * statistics.stdev(gaps) / math.sqrt(40)
    mean = statistics.mean(gaps)
    found = paired.gap("test", "accuracy", (sum(one) / 40, sum(two) / 40), (rows(one), rows(two)))
    assert found.difference == pytest.approx(mean)
    assert found.interval == pytest.approx((mean - half, mean + half))


def test_the_interval_of_the_other_way_round_is_its_mirror():
    draw = random.Random(2)
    one, two = (rows([draw.random() < 0.6 for _ in range(130)]) for _ in range(2))
    there = paired.interval((one, two), "macro_f1", 0.1)
    back = paired.interval((two, one), "macro_f1", -0.1)
    assert there == pytest.approx((-back[1], -back[0]))


def test_examples_of_one_source_are_left_out_together():
    """20 answers, each ten times over: the interval is that of the 20."""
    draw = random.Random(4)
    right = [[draw.random() < 0.6 for _ in range(20)] for _ in range(2)]
    pair = [rows([good for good in own for _ in range(10)]) for own in right]
    for own in pair:
        for row in own:
            row["source"] = row["index"] // 10
    gap = (sum(right[1]) - sum(right[0])) / 20
    wanted = stats.ttest_rel(
        *([float(good) for good in own] for own in reversed(right))
    ).confidence_interval()
    assert paired.interval(pair, "accuracy", gap) == pytest.approx(tuple(wanted))


def test_a_metric_that_cannot_be_computed_any_more_is_a_reason():
    """Its package or its encoder is not here; the scores of finished runs stay."""
    said = [{"index": n, "label": "good", "prediction": text} for n, text in enumerate("abc")]
    pair = said, said
    found = paired.gap("test", r'bertscore(model="\u002fnowhere")', (0.5, 0.75), pair)
    assert (found.difference, found.interval) == (0.25, None)
    assert "here" in found.reason


@pytest.mark.slow
def test_a_model_beside_its_equal_is_seldom_called_different():
    """Of 300 pairs without a difference about one in twenty; 25 is four standard deviations more."""
    draw, alarms = random.Random(3), 0
    for _ in range(300):
        one, two = ([{"loss": draw.expovariate(1)} for _ in range(120)] for _ in range(2))
        gap = statistics.mean(b["loss"] - a["loss"] for a, b in zip(one, two, strict=True))
        low, high = paired.interval((one, two), "loss", gap)
        alarms += not low <= 0 <= high
    assert 4 <= alarms <= 30


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (rows([1, 0]), rows([1, 0, 1])),
        (rows([1, 0]), rows([1, 0], label=2)),
    ],
    ids=["number", "labels"],
)
def test_predictions_of_other_examples_are_not_paired(one, two):
    assert paired.unlike(one, two)
    assert not paired.unlike(one, one)


def test_where_no_example_says_otherwise_there_is_no_interval():
    found = paired.gap("test", "accuracy", (0.5, 0.5), (rows([1, 0]), rows([1, 0])))
    assert (found.difference, found.interval) == (0, None)
    assert found.reason


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    one = finish(
        folder, {"name": "lora", "rank": 2}, training={"evaluate_every": 1, "logging_every": 1}
    )
    two = finish(
        folder, {"name": "lora", "rank": 4}, name="two", training={"evaluate_every": 1}, seed=1
    )
    return one.path, two.path


def test_what_two_runs_do_not_share_is_said_key_by_key(runs):
    found = difference.between(*runs)
    changed = {change.key: (change.before, change.now) for change in found.config}
    assert changed == {"method.rank": (2, 4), "seed": (0, 1), "training.logging_every": (1, 10)}
    assert (found.data, found.versions) == ([], [])


def test_the_scores_of_two_runs_are_those_that_they_have_recorded(runs):
    one, two = (json.loads((path / "result.json").read_text())["metrics"] for path in runs)
    for gap in difference.between(*runs).scores:
        first, second = (found[gap.split][gap.metric]["value"] for found in (one, two))
        assert (gap.first, gap.second) == (first, second)
        assert gap.difference == second - first
        assert gap.interval is None or gap.interval[0] <= gap.difference <= gap.interval[1]


def test_other_data_and_versions_are_said(runs, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    environment = json.loads((other / "environment.json").read_text())
    environment["data"]["fingerprint"] = "another"
    environment["packages"]["torch"] = "1.0"
    (other / "environment.json").write_text(json.dumps(environment))
    (other / "manifest.json").unlink()
    found = difference.between(runs[0], other)
    assert [change.key for change in found.data] == ["fingerprint"]
    assert [change.key for change in found.versions] == ["packages.torch"]
    assert found.config == []


def test_a_run_is_shown_with_its_scores_curves_and_what_its_file_says(runs):
    shown = json.loads(invoke("show", runs[0], "--json").stdout)
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    curves = {curve["name"]: curve for curve in shown["curves"]}
    assert curves["loss"]["values"] == losses
    assert len(curves) == 2
    assert shown["status"] == "finished"
    assert shown["given"]["method.rank"] == 2
    assert shown["given"]["training.learning_rate"] == 0.02
    assert not {"paths.runs", "name"} & set(shown["given"])
    right = shown["largest_class"]["right"]
    assert right == {"validation": pytest.approx(1 / 3), "test": pytest.approx(1 / 3)}


def test_the_screen_has_each_score_and_the_whole_is_asked_for(runs):
    screen, whole = invoke("show", runs[0]).stdout, invoke("show", runs[0], "--all").stdout
    value = json.loads((runs[0] / "result.json").read_text())["metrics"]["test"]["accuracy"][
        "value"
    ]
    assert f"{value:.4f}" in screen
    assert len(screen.splitlines()) <= 50 < len(whole.splitlines())
    assert str(runs[0] / "adapter") in screen


def test_two_runs_are_shown_beside_each_other(runs):
    found = json.loads(invoke("show", *runs, "--json").stdout)
    assert {"config", "data", "versions", "scores", "interval"} < set(found)
    assert "method.rank" in invoke("show", *runs).stdout
    assert invoke("show", *runs, "--all").exit_code == 2


@pytest.mark.parametrize("name", ["result.json", "environment.json", "metrics.jsonl"])
def test_a_damaged_file_is_named(runs, tmp_path, name):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    (other / name).write_text('{"half\n')
    with pytest.raises(CheckpointError) as raised:
        summary(other)
    assert str(other / name) in str(raised.value)


def test_what_is_said_beside_a_recipe_is_told_apart_from_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: glue/sst2-lora\nmethod: {rank: 3}\ntask: {clean: true}\n")
    file = runfile.resolve(config.read(path, ["training.epochs=1", "task.max_length=64"]))
    kept = origin.record(file, tmp_path / "run" / "environment.json")
    given = {"method.rank": 3, "task.clean": True, "task.max_length": 64, "training.epochs": 1}
    assert origin.read({"origin": kept}, file.resolved) == ("glue/sst2-lora", given)


def test_a_recipe_as_it_is_has_nothing_beside_it(tmp_path):
    file = runfile.resolve(config.read("glue/sst2-lora"))
    kept = origin.record(file, tmp_path / "environment.json")
    assert kept == {"recipe": "glue/sst2-lora", "given": []}


def test_a_run_again_from_its_own_file_does_not_know_what_was_given(runs):
    file = runfile.resolve(config.read(runs[0] / "config.yaml"))
    assert origin.record(file, runs[0] / "environment.json") is None


def test_a_sparkline_rises_where_values_do():
    assert _run_screen.sparkline(list(range(8))) == _run_screen.BLOCKS
    assert _run_screen.sparkline([3, 3, 3]) == _run_screen.BLOCKS[0] * 3
    long = _run_screen.sparkline([n // 100 for n in range(1000)])
    assert (len(long), list(long)) == (_run_screen.POINTS, sorted(long))


def test_a_run_that_has_not_begun_to_train_is_shown(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert summary(tmp_path).curves == ()
    assert invoke("show", tmp_path).exit_code == 0
    assert graftlab.__version__
