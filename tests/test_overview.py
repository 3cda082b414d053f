"""A folder of runs as a table: how each stands and why, filtered and sorted, from a file or two of each."""

import csv
import io
import json
import os
import signal
import sys
import time

import pytest
from typer.testing import CliRunner

from graftlab import cli, config
from graftlab.config.reread import reread
from graftlab.errors import ConfigError
from graftlab.rundir.run import Run
from graftlab.runs import overview, status

LOG = "2026-03-04 05:06:07,089 INFO graftlab: data: {}\n"
FAILED = (
    "2026-03-04 05:07:00,000 ERROR graftlab: DataError: no column.\n"
    'Traceback (most recent call last):\n  File "x.py", line 1\ngraftlab.errors.DataError: no column.\n'
)


def result(name, score=0.5, method="lora", split="test", **more):
    return {
        "name": name, "task": "sst2", "method": method, "backbone": "minilm", "seed": 3,
        "parameters": {"trainable": 10, "total": 100}, "seconds": {"training": 1.5},
        "metrics": {split: {"accuracy": {"value": score, "standard_error": 0.1}}}, **more,
    }  # fmt: skip


def write(folder, name, *, log=LOG, done=None, rate=1e-4, method="lora"):
    path = folder / name
    path.mkdir(parents=True)
    values = {
        "name": name,
        "method": {"name": method, "rank": 4},
        "task": {"name": "sst2", "tasks": [{"as": "a"}]},
        "backbone": {"model": "minilm"},
        "training": {"learning_rate": rate},
        "seed": 3,
    }
    (path / "config.yaml").write_text(config.dump(values))
    (path / "run.log").write_text(log)
    if done is not None:
        (path / "result.json").write_text(json.dumps(done))
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "best", done=result("best", 0.9), rate=1e-3)
    write(tmp_path, "good", done=result("good", 0.8, "head"), method="head")
    write(tmp_path, "bad", log=LOG + FAILED)
    return tmp_path


def by_name(found):
    return {row.run: row for row in found}


def test_a_finished_run_has_its_score_with_its_error_and_what_it_is(folder):
    row = by_name(overview.rows(folder))["best"]
    assert (row.status, row.score, row.standard_error) == ("finished", 0.9, 0.1)
    assert (row.metric, row.split, row.method, row.task) == ("accuracy", "test", "lora", "sst2")
    assert (row.backbone, row.seed, row.trained, row.seconds) == ("minilm", 3, 10, 1.5)
    assert row.date == "2026-03-04 05:06:07"


def test_without_a_test_split_the_score_is_that_of_validation(tmp_path):
    write(tmp_path, "a", done=result("a", 0.7, split="validation"))
    [row] = overview.rows(tmp_path)
    assert (row.split, row.score) == ("validation", 0.7)


def test_a_failed_run_says_why_and_what_it_was_to_be(folder):
    row = by_name(overview.rows(folder))["bad"]
    assert (row.status, row.cause) == ("failed", "DataError: no column.")
    assert (row.method, row.task, row.backbone, row.seed) == ("lora", "sst2", "minilm", 3)


@pytest.mark.parametrize(
    ("log", "stands", "cause"),
    [
        (LOG, "stopped", None),
        ("", "stopped", None),
        (LOG + FAILED + LOG, "stopped", None),
        (LOG + "2026-03-04 05:07:00,000 ERROR graftlab: Stopped: by SIGTERM\n", "stopped", None),
        (
            LOG + "2026-03-04 05:07:00,000 ERROR graftlab: ConfigError: 2 problems:\n  a.\n  b.\n"
            "Traceback (most recent call last):\n",
            "failed",
            "ConfigError: 2 problems: a. b.",
        ),
        (
            LOG + f"2026-03-04 05:07:00,000 ERROR graftlab: {status.BUG} or elsewhere\n"
            "Traceback (most recent call last):\nZeroDivisionError: division by zero\n",
            "failed",
            "ZeroDivisionError: division by zero",
        ),
    ],
    ids=["killed", "no log", "resumed and killed", "a signal", "several problems", "a bug"],
)
def test_what_a_run_ended_by_is_read_from_its_log(tmp_path, log, stands, cause):
    write(tmp_path, "a", log=log)
    [row] = overview.rows(tmp_path)
    assert (row.status, row.cause) == (stands, cause)


def test_a_run_that_a_process_works_on_is_running(tmp_path):
    import subprocess

    path = write(tmp_path, "a", log=LOG + FAILED)
    code = (
        "import sys, pathlib; from graftlab.rundir.run import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    [row] = overview.rows(tmp_path)
    process.communicate()
    assert row.status == "running"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"metrics": {"test": {"accuracy": 3}}}'])
def test_a_damaged_result_is_a_failure_that_names_the_file(folder, content):
    (folder / "best" / "result.json").write_text(content)
    row = by_name(overview.rows(folder))["best"]
    assert row.status == "failed"
    assert str(folder / "best" / "result.json") in row.cause


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (["method.name=lora"], {"best", "bad"}),
        (["method=lora", "status=finished"], {"best"}),
        (["training.learning_rate=1e-3"], {"best"}),
        (["task.tasks.0.as=a", "method.name=head"], {"good"}),
        (["method.name=dora"], set()),
    ],
)
def test_conditions_are_of_columns_or_of_keys_and_all_hold(folder, where, names):
    assert {row.run for row in overview.rows(folder, where)} == names


@pytest.mark.parametrize("where", ["metod.name=lora", "method.name", "=x"])
def test_a_condition_that_means_nothing_is_refused(folder, where):
    with pytest.raises(ConfigError) as raised:
        overview.rows(folder, [where])
    assert raised.value.problems[0].place.argument.name == "where"


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("score", ["good", "best", "bad"]),
        ("-score", ["best", "good", "bad"]),
        ("run", ["bad", "best", "good"]),
    ],
)
def test_rows_are_sorted_by_a_column_and_what_has_none_is_last(folder, sort, names):
    assert [row.run for row in overview.rows(folder, sort=sort)] == names


def test_an_unknown_column_is_refused_with_those_that_there_are(folder):
    with pytest.raises(ConfigError) as raised:
        overview.rows(folder, sort="scor")
    assert "score" in raised.value.problems[0].allowed


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "runs" / "methods"
    write(folder / "runs", "lora-seed0", done=result("lora-seed0", 0.9))
    write(folder / "runs", "head-seed0", log=LOG + FAILED, method="head")
    planned = [{"run": f"{name}-seed0", "method": name, "task": "sst2", "backbone": "minilm", "seed": 0}
               for name in ("lora", "head", "dora")]  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(planned))
    return folder


def test_a_study_is_one_row_that_counts_its_runs(study):
    [row] = overview.rows(study.parent)
    assert (row.run, row.kind, row.status, row.seconds) == ("methods", "study", "failed", 1.5)
    assert row.cause.startswith("1 of 3 ")


def test_what_ranks_first_in_a_study_is_its_score(study):
    rows = [{"rank": rank, "task": "sst2", "backbone": "minilm", "method": method, "setting": {},
             "metric": "accuracy", "ranked_by": "test", "trainable": 10,
             "test": {"mean": mean, "standard_error": 0.02}}
            for rank, method, mean in ((2, "head", 0.5), (1, "lora", 0.9))]  # fmt: skip
    (study / "comparison.json").write_text(json.dumps({"rows": rows}))
    [row] = overview.rows(study.parent)
    assert (row.method, row.score, row.standard_error) == ("lora", 0.9, 0.02)


def test_the_runs_of_a_study_and_those_that_wait_are_seen_in_its_folder(study):
    stand = {row.run: row.status for row in overview.rows(study)}
    assert stand == {"lora-seed0": "finished", "head-seed0": "failed", "dora-seed0": "waiting"}


def test_of_a_finished_run_three_files_are_opened_and_no_yaml(folder):
    opened, watched = [], [True]

    def watch(event, arguments):  # an audit hook cannot be taken out again
        if watched and event == "open" and str(folder) in str(arguments[0]):
            opened.append(str(arguments[0]).removeprefix(f"{folder}/"))

    sys.addaudithook(watch)
    overview.rows(folder, ["method.name=lora"], "-score")
    watched.clear()
    assert sorted(name for name in opened if not name.startswith("bad")) == [
        "best/manifest.json", "best/result.json", "best/run.log",
        "good/manifest.json", "good/result.json", "good/run.log",
    ]  # fmt: skip


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_the_command_gives_the_same_rows_as_text_json_and_csv(folder):
    listed = ("list", "runs", "--runs", folder, "--sort", "-score")
    as_json = json.loads(invoke(*listed, "--json").stdout)["runs"]
    as_csv = list(csv.DictReader(io.StringIO(invoke(*listed, "--csv").stdout)))
    lines = invoke(*listed).stdout.splitlines()
    assert (
        [row["run"] for row in as_json] == [row["run"] for row in as_csv] == ["best", "good", "bad"]
    )
    assert [line.split()[0] for line in lines] == ["run", "best", "good", "bad"]
    assert float(as_csv[0]["score"]) == as_json[0]["score"] == 0.9
    assert "0.9000 ± 0.1000" in lines[1]


def test_options_of_runs_are_refused_where_something_else_is_listed():
    assert invoke("list", "methods", "--sort", "score").exit_code == 2


VALUES = [
    *("x: y", "- z", "#h", "[q]", "a #b", "it's", '"q"', "", "null", "1e-4", "0x1", "\n", "tab\t", "é"),
    *("-", "?", "a:", "!t", "&a", "*b", "|", ">", "%x", "@y", "`", "{}", "[]", "~", ":", " x", "x "),
    *("\u2028", "true", "Truth", "no", None, True, 1.5, -3, [], {}, [[1, [2]], {"a": [{"b": 1}]}]),
]  # fmt: skip


def test_what_was_dumped_is_read_again_as_the_parser_reads_it(tmp_path):
    path = tmp_path / "config.yaml"
    texts = {value: n for n, value in enumerate(VALUES) if isinstance(value, str)}
    whole = [config.read(recipe).values for recipe in config.recipes().values()]
    for values in [*whole, {"a": VALUES, "b": texts}, *({"x": {"y": value}} for value in VALUES)]:
        path.write_text(config.dump(values), encoding="utf-8")
        assert reread(path) == config.read_yaml(path) == values


@pytest.mark.parametrize(
    "text", ["a: {b: 1}\n", "a:\n    b: 1\n    c: [1, 2]\n", "# x\na: 1 # y\n"]
)
def test_what_a_hand_has_written_is_read_by_the_parser(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert reread(path) == config.read_yaml(path)


def test_a_run_that_is_none_has_no_row(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "a.txt").write_text("")
    assert overview.rows(tmp_path) == overview.rows(tmp_path / "gone") == []
    assert not Run(tmp_path / "notes").started


@pytest.fixture
def a_search(tmp_path):
    """A search of three trials: one is the best, one was pruned, one trains."""
    out = tmp_path / "rates"
    space = {"method.name": {}, "training.learning_rate": {}, "method.mode": {}}
    for name, more in (
        ("trial-1", {"done": result("trial-1", 0.9, split="validation"), "rate": 1e-3}),
        ("trial-2", {"rate": 2e-3}),
        ("trial-3", {"rate": 3e-3}),
    ):
        write(out / "runs", name, **more)
    (out / "search.json").write_text(json.dumps({"name": "rates", "space": space}))
    return out


def ends(out):
    best = {"trial": 0, "scores": {"accuracy": 0.9}, "run": "trial-1"}
    summary = {"trials": {"complete": 1, "pruned": 1, "fail": 1}, "best": best}
    (out / "summary.json").write_text(json.dumps(summary))
    (out / "trials.csv").write_text(
        "trial,state,run\n0,complete,trial-1\n1,pruned,trial-2\n2,fail,\n"
    )


def test_a_search_is_one_row_with_its_best_trial_and_in_it_the_trials_are_rows(a_search):
    [row] = overview.rows(a_search.parent)
    assert (row.run, row.kind, row.status, row.score) == ("rates", "search", "stopped", None)
    ends(a_search)
    [row] = overview.rows(a_search.parent)
    assert (row.kind, row.status, row.score, row.split) == ("search", "finished", 0.9, "validation")
    assert row.method == "lora training.learning_rate=0.001"
    trials = by_name(overview.rows(a_search))
    assert {name: trial.method for name, trial in trials.items()} == {
        f"trial-{n}": f"lora training.learning_rate=0.00{n}" for n in (1, 2, 3)
    }
    assert {trial.kind for trial in trials.values()} == {"run"}
    assert (trials["trial-2"].status, trials["trial-2"].cause) == ("stopped", "pruned by its curve")
    assert trials["trial-3"].cause is None


def test_a_search_at_which_a_process_works_is_running(a_search):
    ends(a_search)  # before: it goes on with more trials
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        with Run(a_search / "workers" / "me").lock():
            os.write(writes, b"1")
            time.sleep(60)
        os._exit(0)
    os.read(reads, 1)
    [row] = overview.rows(a_search.parent)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (row.status, row.cause) == ("running", "3 runs, 1 finished")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"best": 3}', '{"best": {"run": "trial-1"}}'])
def test_a_search_whose_files_are_damaged_still_has_a_row(a_search, content):
    (a_search / "summary.json").write_text(content)
    (a_search / "trials.csv").write_bytes(b"\xff\xfe\x00")
    [row] = overview.rows(a_search.parent)
    assert (row.kind, row.score) == ("search", None)
    assert len(overview.rows(a_search)) == 3
