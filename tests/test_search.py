"""A search: spaces by closed forms, trials that really train, and kills that change no byte.

Slow: its kills want fresh processes, and its trials really train.
"""

import csv
import io
import math
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import pytest
from vector_runs import write_split

import graftlab
from graftlab import config, report, runfile, search, study, terminal
from graftlab.commands import tune
from graftlab.errors import ConfigError, SearchFailed
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.search import engine, space, storage, whole_file, winner
from graftlab.search.objective import Objective
from graftlab.search.space import Range
from graftlab.study.folders import identity
from graftlab.workers import Crew

BASE = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: lora}
  training: {max_steps: 4, batch_size: 4, evaluate_every: 2, learning_rate: 1e-2}
"""
SPACE = (
    BASE
    + """
space:
  training.learning_rate: {float: [1e-3, 1e-1], log: true}
  method.name: [lora, bitfit]
  method.rank: {int: [1, 8], when: {method.name: lora}}
"""
)
GRID = (
    BASE
    + """
space: {method.rank: [1, 2], training.learning_rate: [1e-3, 1e-2]}
sampler: {name: grid}
"""
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with reviews of one word, where a search file finds them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(storage.VARIABLE, raising=False)
    for name, first in (("train", 0), ("test", 30)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{n % 2}" for n in range(first, first + 30)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")


def read(text, *overrides):
    Path("search.yaml").write_text(text, encoding="utf-8")
    return search.read("search.yaml", overrides)


def refused(text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.problems


@pytest.mark.parametrize("name", [n for n in config.recipes() if n.startswith("tune/")])
def test_every_shipped_search_can_be_read(name):
    plan = search.read(name)
    assert plan.search.winner.seeds
    assert plan.file.seed not in plan.search.winner.seeds


def test_the_shipped_search_of_elm_asks_for_nothing_but_data():
    pytest.importorskip("bert_score", reason="bert-score is not installed")
    for split in ("train", "validation", "test"):
        vectors = np.random.default_rng(0).normal(size=(64, 2560)).astype(np.float32)
        rows = [
            {
                "task_type": "summary",
                "embedding_file_idx": i,
                "query": f"{i}?",
                "response": f"it is {i}",
            }
            for i in range(64)
        ]
        write_split(Path("data") / split, vectors, rows)
    plan = search.read("elm/search", ["base.task.data_dir=data"])
    assert (plan.search.trials, plan.search.hours, plan.search.objective) == (
        50,
        24,
        ("elm_objective",),
    )
    assert plan.file.resolved["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("wrong", "line", "key"),
    [
        ("training.learning_rat: {float: [1e-3, 1]}", 8, "learning_rat"),
        ("training.learning_rate: {float: [-1, 1]}", 8, "learning_rate"),
        ("learning_rate: {float: [1e-3, 1]}", 8, "learning_rate"),
        ("method.rank: {int: [0, 8]}", 8, "rank"),
        ("method.rank: {float: [1, 8]}", 8, "rank"),
        ("method.name: [lora, lorra]", 8, "lorra"),
        ("method.rank: {int: [8, 1]}", 8, "smallest"),
        ("method.rank: {int: [1, 8], choice: [1]}", 8, "one of"),
        ("method.rank: [4, 4]", 8, "once"),
        ("training.learning_rate: {float: [0, 1], log: true}", 8, "log"),
        ("method.rank: {int: [1, 8], when: {method.nam: lora}}", 8, "method.nam"),
        ("seed: {int: [1, 8]}", 8, "seed"),
    ],
)
def test_a_range_that_no_run_could_have_is_refused_where_it_stands(wrong, line, key):
    problems = refused(BASE + "space:\n  " + wrong + "\n")
    assert any(p.place.line == line and key in p.said for p in problems), problems


def test_a_field_that_a_method_does_not_have_is_refused_in_the_branch_where_it_would_stand():
    problems = refused(BASE + "space:\n  method.name: [lora, bitfit]\n  method.rank: [1, 2]\n")
    assert any("rank" in p.said for p in problems)
    read(SPACE)  # with its condition it may


def test_an_objective_that_the_task_does_not_report_is_refused():
    (problem,) = refused(SPACE + "objective: [acuracy]\n")
    assert (problem.kind, problem.given) == ("unknown", "acuracy")
    (problem,) = refused(SPACE + "objective: [seconds]\n")
    assert problem.given == "seconds"  # a cost is no score


WRITES = """
base:
  backbone: {model: smollm2_135m}
  task: {name: word_problems}
  method: {name: lora}
space: {training.learning_rate: [1e-4, 1e-3]}
trials: 1
"""


@pytest.mark.parametrize("objective", [None, "exact_match"])
def test_an_objective_that_reads_texts_wants_them_written_of_validation(objective):
    given = (
        []
        if objective is None
        else [f"objective=[{objective}]", f"base.task.metrics=[{objective}]"]
    )
    Path("search.yaml").write_text(WRITES)
    with pytest.raises(ConfigError) as caught:
        search.read("search.yaml", given)
    (problem,) = caught.value.problems
    assert (problem.kind, problem.given) == ("unscored", objective)
    search.read("search.yaml", [*given, "base.task.generation.splits=[validation, test]"])
    search.read(
        "search.yaml", ["objective=[perplexity]", "base.task.metrics=[exact_match, perplexity]"]
    )


def test_the_mean_of_a_mixture_wants_the_first_of_each_of_its_tasks_on_validation():
    two = ", ".join(f"{{as: {name}, name: word_problems}}" for name in ("a", "b"))
    Path("search.yaml").write_text(
        WRITES.replace("{name: word_problems}", f"{{kind: mixture, tasks: [{two}]}}")
    )
    for objective in ("mean", "b/gsm8k_accuracy"):
        with pytest.raises(ConfigError) as caught:
            search.read("search.yaml", [f"objective=[{objective}]"])
        (problem,) = caught.value.problems
        assert (problem.kind, problem.given) == ("unscored", objective)
    with pytest.raises(ConfigError) as caught:
        search.read("search.yaml", ["objective=[c/gsm8k_accuracy]"])
    assert caught.value.problems[0].kind == "unknown"


def test_a_search_given_to_run_is_called_one():
    Path("search.yaml").write_text(WRITES)
    with pytest.raises(ConfigError) as caught:
        runfile.resolve(config.read("search.yaml"))
    assert [problem.kind for problem in caught.value.problems] == ["search"]


def test_every_end_of_every_range_is_tried_once():
    plan = read(SPACE)
    corners = list(search.design.corners(plan.search))
    assert {c["training.learning_rate"] for c in corners} == {1e-3, 1e-1}
    assert {c["method.name"] for c in corners} == {"lora", "bitfit"}
    assert {c.get("method.rank") for c in corners} == {1, 8, None}
    assert all(("method.rank" in c) == (c["method.name"] == "lora") for c in corners)


def test_a_grid_is_the_product_of_its_values_with_conditions():
    ranges = {
        "a": Range(choice=("x", "y")),
        "b": Range(int=(1, 5), step=2),
        "c": Range(float=(0.0, 0.3), step=0.1, when={"a": "y"}),
    }
    found = [tuple(cell.values()) for cell in space.cells(ranges)]
    expected = [("x", b) for b in (1, 3, 5)]
    assert found[:3] == expected
    assert [tuple(round(v, 9) if isinstance(v, float) else v for v in f) for f in found[3:]] == [
        ("y", b, c) for b, c in product((1, 3, 5), (0.0, 0.1, 0.2, 0.3))
    ]
    with pytest.raises(ValueError, match="a"):
        list(space.cells({"a": Range(float=(0.0, 1.0))}))


def test_what_is_at_an_edge_and_what_a_range_holds():
    by_size = Range(float=(1e-4, 1e-1), log=True)
    assert [by_size.at_edge(v) for v in (1.2e-4, 3e-3, 9e-2)] == ["smallest", None, "largest"]
    assert [by_size.holds(v) for v in (1e-4, 0.2, True, "x")] == [True, False, False, False]
    stepped = Range(int=(2, 8), step=3)
    assert [stepped.holds(v) for v in (2, 3, 5, 8)] == [True, False, True, True]
    assert Range(choice=(4, [1, 2])).holds([1, 2])
    short = Range(int=(0, 10), step=4)  # 0, 4 and 8
    assert [short.at_edge(v) for v in (0, 4, 8)] == ["smallest", None, "largest"]
    assert Range(int=(0, 3), step=4).at_edge(0) is None


def test_the_expected_best_is_the_mean_over_all_draws():
    """By counting all draws with replacement of n out of four scores (Dodge et al. 2019)."""
    scores = [0.2, 0.5, 0.5, 0.9]
    for better in (True, False):
        best = max if better else min
        found = winner.expected_best(scores, better)
        for count in (1, 2, 3, 4):
            draws = [best(draw) for draw in product(scores, repeat=count)]
            assert found[count - 1] == pytest.approx(math.fsum(draws) / len(draws))
    assert winner.expected_best([None, math.nan], True) == ()


def test_a_sampler_draws_by_the_seed_and_the_number_of_trials_alone():
    import optuna

    section = read(SPACE).search.sampler

    def drawn(seed, trials):
        study = optuna.create_study(sampler=engine.sampler(section, seed, trials))
        return study.ask().suggest_float("x", 0, 1)

    assert drawn(1, 3) == drawn(1, 3)
    assert len({drawn(1, 3), drawn(1, 4), drawn(2, 3)}) == 3


def test_fields_with_conditions_are_drawn_anew_for_every_trial_of_qmc():
    plan = read(SPACE + "sampler: {name: qmc}\n")
    study = optuna.create_study()
    study.enqueue_trial({"method.name": "bitfit"})  # the sequence is of what the first trial has
    for number in range(16):
        study.sampler = engine.sampler(plan.search.sampler, plan.search.seed, number)
        trial = study.ask()
        space.suggest(plan.search.space, trial)
        study.tell(trial, 0.5)
    drawn = {trial.params.get("method.rank") for trial in study.trials} - {None}
    assert len(drawn) > 2


def test_a_database_is_shown_without_its_password():
    given = "postgresql+psycopg://me:s3cret@host/db"
    assert "s3cret" not in storage.shown(given)
    of_query = "postgresql+psycopg://host/db?user=me&password=s3cret"
    assert "s3cret" not in storage.shown(of_query)
    assert "s3cret" not in terminal.redact(f"{of_query} is gone")
    with pytest.raises(Exception) as caught:  # noqa: PT011
        storage.open_storage("nodriver://me:s3cret@host/db", Path("out"))
    assert "s3cret" not in str(caught.value)
    assert caught.value.exit_code != 1


@pytest.mark.parametrize(
    ("given", "variable", "words"),
    [
        (None, None, []),
        (None, "sqlite:///a.db", ["--storage", '"$GRAFTLAB_STORAGE"']),
        ("sqlite:///a b.db", "sqlite:///c.db", ["--storage", "'sqlite:///a b.db'"]),
        ("postgresql://me:s3cret@host/db", None, ["--storage", "'postgresql://me:***@host/db'"]),
        ("postgresql://host/db?password=s3cret", None, ["--storage", "'postgresql://host/db?***'"]),
    ],
)
def test_the_command_that_goes_on_names_the_storage(given, variable, words, monkeypatch):
    if variable:
        monkeypatch.setenv(storage.VARIABLE, variable)
    assert tune.storage_words(given) == words


def found_of(names, values, **attributes):
    """Return a search of one trial that has ended, as if it had been carried out."""
    import optuna

    rank = optuna.distributions.CategoricalDistribution([1, 2])
    trial = optuna.trial.create_trial(
        params={"method.rank": 1},
        distributions={"method.rank": rank},
        values=values,
        user_attrs=attributes,
    )
    plan = read(BASE + "space: {method.rank: [1, 2]}\n")
    wanted = tuple(Objective(name, True) for name in names)
    return search.Found(plan, Path("out"), wanted, (trial,), optuna.create_study())


def test_what_a_spreadsheet_would_run_is_text_in_the_table_of_trials():
    found = found_of(["accuracy"], [-0.5], **{storage.CAUSE: "=1+1"})
    [row] = csv.DictReader(io.StringIO(winner.table(found)))
    assert (row["cause"], row["method.rank"], row["accuracy"]) == ("'=1+1", "1", "-0.5")


def test_seconds_as_an_objective_stand_beside_those_of_the_trial():
    found = found_of(["accuracy", "seconds"], [0.5, 12.0])
    [row] = csv.DictReader(io.StringIO(winner.table(found)))
    assert row["seconds"] == "12.0"
    assert set(row) == {
        *("trial", "state", "method.rank", "accuracy", "seconds", "seconds of the trial"),
        *("run", "cause"),
    }


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("sampler: {name: random, candidates: 9}", "candidates"),
        ("sampler: {name: gp, group: false}", "group"),
        ("pruner: {name: none, warmup: 3}", "warmup"),
        ("pruner: {name: median, reduction: 4}", "reduction"),
        ("objective: [accuracy, seconds]\npruner: {name: median}", "pruner"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(given, key):
    assert any(key in problem.said for problem in refused(f"{SPACE}{given}\n"))


def test_a_trial_is_looked_at_after_its_warm_up_and_then_every_so_often():
    given = read(SPACE, "pruner.warmup=2", "pruner.interval=3").search
    assert [n for n in range(1, 11) if engine.may_prune(given, n)] == [3, 6, 9]
    several = read(SPACE, "objective=[accuracy, seconds]").search
    assert not any(engine.may_prune(several, n) for n in range(9))


# Searches carried out.


@pytest.mark.slow
def test_workers_together_begin_no_trial_too_many():
    found = search.carry_out(read(SPACE + "trials: 3\n"), Path("out"), crew=Crew(2), quiet=True)
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 3


@pytest.mark.slow
def test_trials_of_the_same_values_that_begin_at_once_share_one_run():
    text = BASE + "space: {method.rank: [1]}\nsampler: {name: random}\ntrials: 3\n"
    found = search.carry_out(read(text), Path("out"), crew=Crew(3), quiet=True)
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 3
    assert len({trial.user_attrs["run"] for trial in found.trials}) == 1


@pytest.mark.slow
def test_of_two_objectives_the_front_is_what_no_other_beats_in_both():
    text = GRID.replace("sampler", "objective: [accuracy, trainable]\nsampler")
    found = search.carry_out(read(text), Path("out"), quiet=True)
    said = search.write(found)
    points = {t.number: (-t.values[0], t.values[1]) for t in found.trials}
    beaten = {
        a for a, p in points.items() for q in points.values()
        if p != q and q[0] <= p[0] and q[1] <= p[1]
    }  # fmt: skip
    assert {trial.number for trial in said.front} == set(points) - beaten
    assert said.best is None
    assert not Path("out/best.yaml").exists()


def lines(out):
    with (out / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_grid_tries_every_cell_and_the_best_file_gives_the_best_score_again():
    plan, out = read(GRID), Path("out")
    found = search.carry_out(plan, out, quiet=True)
    said = search.write(found)
    assert said.counts == {"complete": 4}
    cells = {(row["method.rank"], row["training.learning_rate"]) for row in lines(out)}
    assert cells == set(product(("1", "2"), ("0.001", "0.01")))
    best = max(float(row["accuracy"]) for row in lines(out))
    assert said.best.value == best
    for row in lines(out):
        result = Run(out / "runs" / row["run"]).read_result()
        assert result["metrics"].keys() == {"validation"}, "test has been looked at"
        assert float(row["accuracy"]) == result["metrics"]["validation"]["accuracy"]["value"]
    file = runfile.resolve(config.read(out / "best.yaml"))
    again = graftlab.run(out / "best.yaml", out=Path("again"))
    assert again.read_result()["metrics"]["validation"]["accuracy"]["value"] == best
    assert file.name == "search-best"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert search.write(search.carry_out(plan, out, quiet=True)).counts == {"complete": 4}
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}


@pytest.mark.slow
def test_a_changed_space_is_another_search_unless_it_only_grew():
    out = Path("out")
    small = SPACE + "trials: 2\n"
    search.carry_out(read(small), out, quiet=True)
    grown = small.replace("[1e-3, 1e-1]", "[1e-4, 1e-1]")
    with pytest.raises(ConfigError) as caught:
        search.carry_out(read(grown), out, quiet=True)
    assert "space.training.learning_rate" in str(caught.value)
    found = search.carry_out(read(grown, "trials=3"), out, quiet=True, widen=True)
    assert len(found.trials) == 3
    with pytest.raises(ConfigError):
        search.carry_out(read(small.replace("[1e-3, 1e-1]", "[1e-2, 1e-1]")), out, widen=True)
    with pytest.raises(ConfigError):
        search.carry_out(read(small, "base.training.max_steps=6"), out, widen=True)


@pytest.mark.slow
def test_what_always_fails_ends_early_with_its_causes_and_is_never_a_score():
    text = SPACE.replace("learning_rate: 1e-2", "learning_rate: 1e-2, precision: fp16")
    with pytest.raises(SearchFailed) as caught:
        search.carry_out(read(text + "trials: 9\n"), Path("out"), quiet=True)
    assert caught.value.exit_code == 10
    assert "3 times" in str(caught.value)


@pytest.mark.slow
def test_a_limit_ends_a_trial_before_it_trains():
    text = SPACE.replace("[lora, bitfit]", "[lora]") + "trials: 3\nat_most: {trainable: 10}\n"
    found = search.carry_out(read(text), Path("out"), quiet=True)
    assert {trial.state.name for trial in found.trials} == {"PRUNED"}
    assert not list(Path("out").glob("runs/*"))
    search.write(found)
    assert files.read_json(Path("out") / "summary.json")["limits"] == {"trainable": 3}


@pytest.mark.slow
def test_the_winner_and_the_default_run_at_fresh_seeds_with_test_scores():
    plan = read(GRID + "winner: {seeds: [5]}\n")
    found = search.carry_out(plan, Path("out"), crew=Crew(2), quiet=True)
    compared = search.confirm(found, crew=Crew(2), quiet=True)
    assert {row.method for row in compared.rows} == {"best (lora)", "default (lora)"}
    assert all(list(row.test.values) == [5] for row in compared.rows)
    files.write_text(Path("out/search.yaml"), whole_file.text(plan))
    study.write(compared, Path("out/confirmed"))
    page = report.html(Path("out/confirmed"), {})
    assert "search.yaml" in page
    assert "study.yaml" not in page


def begin(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "graftlab", "tune", "search.yaml", "--out", "out", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def kill_in_the_middle(process):
    """Kill the search and its runs as soon as a run has a checkpoint after its first."""
    deadline = time.monotonic() + 120
    while not [p for p in Path("out/runs").glob("*/checkpoints/step-*") if p.name[-1] != "0"]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # children are told of it by the system


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_within_its_trial_and_ends_with_the_same_bytes():
    text = SPACE.replace("max_steps: 4", "max_steps: 60").replace(
        "evaluate_every: 2", "evaluate_every: 20, save_every: 5"
    )
    Path("search.yaml").write_text(text + "trials: 2\npruner: {name: none}\n")
    kill_in_the_middle(begin())
    killed = [p.parent.name for p in Path("out/runs").glob("*/config.yaml")]
    assert begin().wait() == 0
    table = lines(Path("out"))
    states = [row["state"] for row in table]
    assert states.count("complete") == 2
    failed = [row for row in table if row["state"] == "fail"]
    assert {row["run"] for row in failed} <= set(killed)
    assert files.read_json(Run(Path("out/runs") / killed[0]).environment)["resumes"]
    plan = search.read("search.yaml")
    found = search.carry_out(plan, Path("whole"), quiet=True)
    for trial in found.trials:
        run = trial.user_attrs["run"]
        for name in ("adapter/adapter_model.safetensors", "metrics.jsonl"):
            whole, again = (Path(out) / "runs" / run / name for out in ("whole", "out"))
            assert not again.parent.is_dir() or again.read_bytes() == whole.read_bytes(), name


def test_the_search_file_beside_a_page_means_the_same_files_wherever_it_is_read(monkeypatch):
    Path("given").mkdir()
    Path("other").mkdir()
    for name in ("train.csv", "test.csv", "more.csv"):
        Path("given", name).write_bytes(Path(name.replace("more", "train")).read_bytes())
    text = BASE + "space: {task.files.train: [train.csv, more.csv], method.rank: {int: [1, 4]}}\n"
    text = text.replace("4]}", "4], when: {task.files.train: more.csv}}")
    Path("given/search.yaml").write_text(text, encoding="utf-8")
    plan = search.read("given/search.yaml")
    Path("other/again.yaml").write_text(whole_file.text(plan), encoding="utf-8")
    monkeypatch.chdir("other")
    again = search.read("again.yaml")
    assert identity(again.file.resolved) == identity(plan.file.resolved)
    given = Path("../given").resolve()
    kept = again.search.space
    assert kept["task.files.train"].choice == (f"{given}/train.csv", f"{given}/more.csv")
    assert kept["method.rank"].when == {"task.files.train": f"{given}/more.csv"}
