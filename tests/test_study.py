"""A study: what it asks for, what it does again and what not, and what its table says."""

import json
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from faults import fault
from typer.testing import CliRunner
from waiting import beside, until

from graftlab import cli, config, runfile, study
from graftlab.commands import _comparison
from graftlab.errors import ConfigError, Stopped, StudyIncomplete
from graftlab.planning import budget
from graftlab.report import answer, study_page
from graftlab.report.study_page import Studied
from graftlab.rundir import files, spreadsheet
from graftlab.rundir.run import Run
from graftlab.study import Cell, beyond, labels, records, tables, whole_file
from graftlab.study.folders import Folders
from graftlab.workers import Crew, child

BASE = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  training: {max_steps: 2, batch_size: 4, evaluate_every: 1, save_every: 1, learning_rate: 1e-2}
"""
TWO = BASE + "methods: [head, {name: lora, rank: 2}]\nseeds: [0, 1]\n"
LONG = [
    f"base.training.{given}"
    for given in ("max_steps=200", "save_every=0", "evaluate_every=0", "logging_every=1")
]
GRID = TWO + "vary: {training.learning_rate: [1e-3, 1e-2]}\nchoose: {by: validation}\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with forty reviews of one word, where a study file finds them."""
    monkeypatch.chdir(tmp_path)
    for name, first in (("train", 0), ("test", 30)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{n % 2}" for n in range(first, first + 30)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")


def read(text, *overrides):
    Path("study.yaml").write_text(text, encoding="utf-8")
    return study.read("study.yaml", overrides)


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def finish(folder, planned, **result):
    """Write a finished run, as training would, but with the figures given."""
    run = Run(folder / planned.name)
    run.path.mkdir(parents=True)
    files.write_text(run.config, config.dump(planned.file.resolved))
    files.write_json(
        run.environment,
        {"backbone": {}, "data": {"fingerprint": result.pop("fingerprint", "same")}},
    )
    scores = {
        split: {"accuracy": {"value": result.pop(split), "standard_error": 0.01, "reason": None}}
        for split in ("validation", "test")
        if split in result
    }
    written = {
        "metrics": scores, "steps": 2, "selected_step": 2, "skipped_steps": 0, "not_exact": [],
        "parameters": {"trainable": 10, "total": 100}, "seconds": {"training": 1.5},
        "peak_memory_bytes": 2**20,
    }  # fmt: skip
    files.write_json(run.result, written | result)


def compared(plan, figures):
    """Return the comparison of a plan whose runs have these figures; None for one that failed."""
    done = []
    for planned in plan.runs:
        made = figures(planned)
        if made is not None:
            finish(Path("made"), planned, **made)
        cause = "Diverged: too fast" if made is None else None
        done.append(records.Done(planned, Path("made") / planned.name, cause))
    return study.compare(plan, done)


def rate(planned):
    return dict(planned.cell.setting)["training.learning_rate"]


# What a study file asks for


def test_every_combination_is_a_run_with_a_name_that_says_what_it_is():
    plan = read(TWO + "vary: {training.learning_rate: [1e-3, 1e-2], training.batch_size: [4, 8]}")
    assert len(plan.runs) == 2 * 2 * 2 * 2 == len({run.name for run in plan.runs})
    first = plan.runs[0]
    assert first.name == "head-learning_rate=0.001-batch_size=4-seed0"
    assert (first.file.training.learning_rate, first.file.training.batch_size) == (1e-3, 4)
    assert {run.file.seed for run in plan.runs} == {0, 1}


def test_entries_that_share_a_name_are_told_apart_by_what_differs():
    plan = read(BASE + "methods: [{name: lora, rank: 2}, {name: lora, rank: 4}, head]")
    assert [run.cell.method for run in plan.runs] == ["lora rank=2", "lora rank=4", "head"]


def test_an_entry_may_be_a_piece_of_a_run_file():
    entry = "{method: {name: head}, training: {learning_rate: 0.5}}"
    head, lora = read(BASE + f"methods: [{entry}, lora]").runs
    assert (head.file.method.name, head.file.training.learning_rate) == ("head", 0.5)
    assert lora.file.training.learning_rate == 1e-2


def test_tasks_and_backbones_are_lists_too():
    lists = "tasks: [{max_train_samples: 8}, {max_train_samples: 12}]\nbackbones: [{width: 4}, {width: 8}]"
    plan = read(TWO + lists)
    assert len(plan.runs) == 16
    assert {run.file.task.config.max_train_samples for run in plan.runs} == {8, 12}
    assert {run.file.backbone.config.width for run in plan.runs} == {4, 8}
    assert "classification_max_train_samples=8-tiny_width=4-head-seed0" in {
        r.name for r in plan.runs
    }


def test_keys_below_a_base_that_is_a_file_are_set_over_what_the_file_says(tmp_path):
    (tmp_path / "digits.yaml").write_text(
        "backbone: {kind: tiny}\ntask: {name: digits}\nmethod: {name: lora, rank: 2}\n"
        "training: {epochs: 5, schedule: {name: cosine, warmup: 3}}\n"
    )
    methods = "methods: [lora, bitfit, head, {name: lora, rank: 3}]\nseeds: [0, 1]\n"
    given = ("base.training.epochs=1", "base.training.schedule.name=linear", "seeds=[4]")
    plan = read("base: digits.yaml\n" + methods, *given)
    assert {run.file.training.epochs for run in plan.runs} == {1}
    schedules = {run.file.training.schedule for run in plan.runs}
    assert {(schedule.name, schedule.warmup) for schedule in schedules} == {("linear", 3)}
    assert [run.file.method.config.rank for run in plan.runs[::3]] == [2, 3]
    assert plan.seeds == (4,)


@pytest.mark.parametrize("base", ["base: mine.yaml", "base: {extends: mine.yaml, seed: 3}"])
def test_a_section_below_a_base_that_is_a_file_is_set_whole_as_in_a_run(tmp_path, base):
    (tmp_path / "mine.yaml").write_text(
        "backbone: {model: vit}\ntask: {name: digits}\nmethod: {name: lora, rank: 2}\n"
    )
    given = "backbone={kind: tiny, modality: images}"
    (planned,) = read(f"{base}\n", f"base.{given}").runs
    alone = runfile.resolve(config.read(tmp_path / "mine.yaml", [given]))
    assert planned.file.backbone.config == alone.backbone.config
    assert planned.file.method.config == alone.method.config


def test_a_wrong_key_below_a_base_that_is_a_file_is_placed_at_its_option(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "backbone: {kind: tiny}\ntask: {name: digits}\nmethod: {name: lora}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read("base: run.yaml\n", "base.training.epoch=1")
    [problem] = caught.value.problems
    assert problem.place.argument.value == "base.training.epoch"


def test_a_base_given_on_the_command_line_takes_keys_too(tmp_path):
    (tmp_path / "other.yaml").write_text(
        "backbone: {kind: tiny}\ntask: {name: digits}\nmethod: {name: head}\n"
    )
    plan = read(TWO, "base=other.yaml", "base.training.batch_size=7", "methods=[head]")
    assert {run.file.training.batch_size for run in plan.runs} == {7}


def test_the_study_file_beside_a_page_means_the_same_files_wherever_it_is_read(monkeypatch):
    """The base in a folder, entries beside the study, an override from the shell: each has its own."""
    for place in ("given/base", "given/study", "shell/logs"):
        Path(place).mkdir(parents=True)
    for at in ("given/base/train.csv", "given/study/train.csv", "given/study/more.csv"):
        Path(at).write_bytes(Path("train.csv").read_bytes())
        Path(at).with_name("test.csv").write_bytes(Path("test.csv").read_bytes())
    own = BASE.replace("base:\n", "").replace("\n  ", "\n")
    Path("given/base/base.yaml").write_text(own, encoding="utf-8")
    text = """
base: ../base/base.yaml
tasks:
  - {kind: classification, files: {train: train.csv}}
  - {kind: classification, max_length: 9}
  - {task: {files: {train: more.csv}}, training: {batch_size: 2}}
methods: [head, {method: {name: lora}, vary: {task.files.test: [test.csv]}}]
"""
    Path("given/study/study.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir("shell")
    plan = study.read("../given/study/study.yaml", ["base.paths.runs=logs"])
    Path("logs/study.yaml").write_text(whole_file.text(plan), encoding="utf-8")
    monkeypatch.chdir("logs")
    again = study.read("study.yaml")
    for one, other in zip(again.runs, plan.runs, strict=True):
        assert one.file.resolved | {"name": ""} == other.file.resolved | {"name": ""}
    files_of = [run.file.resolved["task"]["files"]["train"] for run in again.runs[::2]]
    assert [Path(path).parent.name for path in files_of] == ["study", "base", "study"]


def test_a_base_that_lies_in_the_shells_folder_alone_is_not_meant(tmp_path):
    Path("sub").mkdir()
    Path("mine.yaml").write_text("extends: trec/base\nmethod: {name: lora}\n")
    for base in ("base: mine.yaml", "base: {extends: mine.yaml}"):
        Path("sub/study.yaml").write_text(f"{base}\n")
        with pytest.raises(ConfigError, check=fault("unknown", given="mine.yaml")):
            study.read("sub/study.yaml")


def test_a_base_is_found_beside_the_study_file_wherever_one_stands(tmp_path):
    Path("sub").mkdir()
    Path("sub/mine.yaml").write_text("extends: trec/base\nmethod: {name: lora}\nseed: 5\n")
    Path("sub/study.yaml").write_text("base: mine.yaml\n")
    (run,) = study.read(tmp_path / "sub" / "study.yaml").runs
    assert (run.file.task.config.name, run.seed) == ("trec", 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO + "seed: 3", "'seeds'"),
        (TWO + "methds: [lora]", "'methods'"),
        (BASE + "methods: [lroa]", "'lora'"),
        (BASE + "methods: [{name: lora, rnak: 3}]", "'rank'"),
        (BASE + "methods: [head, head]", "'head' stands twice"),
        (BASE + "methods: [lora, {name: lora, rank: 8}]", "is the same run as lora-seed0"),
        (TWO + "vary: {learning_rate: [1e-3]}", "Write training.learning_rate."),
        (TWO + "vary: {seed: [1, 2]}", "unknown section 'seed'"),
        (TWO + "vary: {training.learning_rate: []}", "one value or more"),
        (TWO + "vary: {training.learning_rate: [0.1, 0.1]}", "each once"),
        (TWO + "choose: {by: validation}", "nothing to choose from"),
        (GRID.replace("by: validation", "by: test"), "allowed: 'validation'"),
        ("methods: [lora]", "base is missing"),
        ("base: glue/bsae", "'glue/base'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text, said):
    message = refusal(text)
    assert said in message
    assert "study.yaml" in message


def test_all_that_is_wrong_in_any_combination_is_said_at_once_and_once():
    message = refusal(
        BASE + "methods: [{name: lora, rank: 0}, {name: prefix, tokns: 2}]\nseeds: [0, 1, 2]\n"
        "vary: {training.learning_rate: [1e-3, -1]}"
    )
    assert message.startswith("3 problems:")
    assert [message.count(word) for word in ("method.rank", "tokns", "learning_rate is -1")] == [
        1
    ] * 3


@pytest.mark.quick("jelly/trec", "pifi/compare-small")
@pytest.mark.parametrize(
    "name",
    [
        n
        for n, p in config.recipes().items()
        if {"base", "methods"} & {*(keys := config.read_yaml(p))} and "space" not in keys
    ],
)
def test_every_shipped_study_can_be_carried_out(name):
    made_by_the_demo = (
        ["base.backbone.model=vit"] if "demo/backbone" in config.recipes()[name].read_text() else []
    )
    names = [run.name for run in study.read(name, made_by_the_demo).runs]
    assert len({*names}) == len(names)


OWN = (
    BASE
    + """methods:
  - head
  - {method: {name: lora, rank: 2}, vary: {training.learning_rate: [1e-2, 1e-1]}}
  - {method: {name: bitfit}, vary: {training.learning_rate: {centre: 1e-2, decades: 1, per_decade: 2}}}
vary: {training.learning_rate: [1e-3, 1e-2], training.batch_size: [4]}
"""
)


def test_a_method_may_vary_by_values_of_its_own_and_a_grid_lies_around_its_centre():
    rates: dict[str, list[float]] = {}
    for run in read(OWN).runs:
        assert run.file.training.batch_size == 4
        rates.setdefault(run.cell.method, []).append(run.file.training.learning_rate)
    assert rates == {
        "head": [1e-3, 1e-2],
        "lora": [1e-2, 1e-1],
        "bitfit": [3.162e-3, 1e-2, 3.162e-2],
    }


def test_a_grid_is_two_decades_of_four_values_each_unless_said():
    """`numpy.geomspace` has the same, of two decades around the centre."""
    text = (
        BASE + "methods: [{method: {name: head}, vary: {training.learning_rate: {centre: 5e-4}}}]"
    )
    found = [run.file.training.learning_rate for run in read(text).runs]
    assert found == pytest.approx(np.geomspace(5e-5, 5e-3, 9), rel=1e-3)


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("{training.learning_rate: {center: 1e-3}}", "centre"),
        ("{training.learning_rate: {centre: 0}}", "greater than 0"),
        ("{trainnig.learning_rate: [1e-3]}", "training"),
        ("{training.learning_rate: [1e-3, 1e-3]}", "each once"),
        ("[1e-3]", "vary"),
    ],
)
def test_a_wrong_vary_of_a_method_is_refused_where_it_stands(vary, said):
    with pytest.raises(ConfigError) as caught:
        read(BASE + f"methods:\n  - head\n  - {{method: {{name: lora}}, vary: {vary}}}\n")
    assert said in str(caught.value)
    assert caught.value.problems[0].place.line == BASE.count("\n") + 3


def test_methods_with_settings_of_their_own_are_chosen_and_shown(capsys):
    plan = read(OWN + "choose: {by: validation}\n")
    figures = lambda run: {"validation": run.file.training.learning_rate, "test": 0.5}  # noqa: E731
    found = compared(plan, figures)
    chosen = {row.method: row.setting["training.learning_rate"] for row in found.rows}
    assert chosen == {"head": "0.01", "lora": "0.1", "bitfit": "0.03162"}
    assert {own.method: own.edges for own in found.tunings} == {
        name: {"training.learning_rate": "largest"} for name in chosen
    }
    tables.show(found)
    assert "0.03162, 4: 0.0316 <" in capsys.readouterr().out


LIKE = BASE + "methods: [{name: lora, rank: 2}, {name: lora, rank: 2, alpha: 3}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (LIKE + "]\nbudget: {equal: trainable}\n", None),
        (LIKE + ", {name: lora, rank: 4}]\nbudget: {equal: trainable}\n", "lora rank=4 alpha"),
        (LIKE + ", {name: lora, rank: 4}]\nbudget: {equal: trainable, within: 9}\n", None),
        (LIKE + ", {name: lora, rank: 4}]\nbudget: {equal: steps}\n", None),
        (
            LIKE + ", {method: {name: head}, training: {max_steps: 3}}]\nbudget: {equal: steps}\n",
            "head 3",
        ),
    ],
)
def test_a_budget_is_checked_before_the_first_run(text, refused):
    Path("study.yaml").write_text(text, encoding="utf-8")
    plan = study.read("study.yaml")
    asked = plan.study.budget
    files = plan.files_by_group()[0]
    if refused is None:
        budget.check(files, asked.equal, asked.within, plan.budget_place)
        return
    with pytest.raises(ConfigError) as caught:
        budget.check(files, asked.equal, asked.within, plan.budget_place)
    assert refused.split()[0] in str(caught.value)
    assert caught.value.problems[0].place.line == text.count("\n")
    found = CliRunner().invoke(cli.app, ["compare", "study.yaml", "--out", "out"])
    assert found.exit_code == ConfigError.exit_code
    assert not Path("out").exists()


def test_splits_are_drawn_with_the_seed_where_that_is_asked_for_and_are_the_same_for_all_methods():
    runs = read(TWO + "split_with_seed: true").runs
    assert [(run.seed, run.file.task.config.split_seed) for run in runs] == [(0, 0), (1, 1)] * 2
    assert {run.file.task.config.split_seed for run in read(TWO).runs} == {0}


def test_runs_that_vary_long_texts_have_names_that_a_disk_takes():
    texts = [f"다음 글의 감정을 한 낱말로 말하시오. {'가' * 80} {end}" for end in "나다"]
    cell = Cell("trec", "tiny", "lora", (("task.prompt", texts[0]),))
    name = labels.run_name(cell, 0, [[1], [1], [1]], set())
    Path(name).mkdir()
    other = cell._replace(setting=(("task.prompt", texts[1]),))
    assert labels.run_name(other, 0, [[1], [1], [1]], {name}) != name


def test_splits_of_every_task_of_a_mixture_are_drawn_with_the_seed():
    one = "kind: classification, files: {train: train.csv, test: test.csv}"
    two = ", ".join(f"{{as: {name}, {one}}}" for name in ("a", "b"))
    text = TWO.replace(one, f"kind: mixture, tasks: [{two}]") + "split_with_seed: true\n"
    for run in read(text).runs:
        drawn = [part.config.split_seed for part in run.file.task.parts.values()]
        assert drawn == [run.seed] * 2


def test_a_task_without_splits_to_draw_is_refused_where_the_key_stands():
    text = TWO.replace(
        "kind: classification, files: {train: train.csv, test: test.csv}", "kind: elm"
    )
    with pytest.raises(ConfigError) as caught:
        read(text + "split_with_seed: true\n")
    lines = {problem.place.line for problem in caught.value.problems}
    assert text.count("\n") + 1 in lines


# What the table says


def test_means_and_deviations_are_over_seeds():
    found = compared(read(TWO), lambda run: {"test": (0.5, 0.7)[run.seed], "validation": 0.5})
    row = found.rows[0]
    assert row.test.mean == pytest.approx(0.6)
    assert row.test.deviation == pytest.approx(0.02**0.5)  # of two values: their distance / sqrt 2
    assert row.test.standard_error == pytest.approx(0.01)
    assert (row.trainable, row.seconds, row.peak_memory_bytes) == (10, 1.5, 2**20)


def test_one_seed_has_no_deviation():
    found = compared(read(BASE + "methods: [head]"), lambda _: {"test": 0.5, "validation": 0.5})
    assert (found.rows[0].test.mean, found.rows[0].test.deviation) == (0.5, None)


def test_without_a_test_split_validation_ranks_and_table_page_and_csv_say_so(capsys):
    score = {"head": 0.7, "lora": 0.9}
    plan = read(BASE + "methods: [head, lora]")
    found = compared(plan, lambda run: {"validation": score[run.cell.method]})
    assert {row.method: (row.place, row.ranked_by, row.score.mean) for row in found.rows} == {
        "head": (2, "validation", 0.7), "lora": (1, "validation", 0.9),
    }  # fmt: skip
    assert not any(row.not_paired for row in found.rows)
    study.write(found, Path("made"))
    lines = Path("made/comparison.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert {(row["method"], row["ranked_by"], row["seeds"]) for row in rows} == {
        ("head", "validation", "1"), ("lora", "validation", "1"),
    }  # fmt: skip
    tables.show(found)
    assert "no test split: ranked by validation" in capsys.readouterr().out
    shown = study_page.of(Studied.of(found, Path("made")), {})
    assert "validation accuracy" in shown.answer
    assert any(line.startswith("A test split of") for line in answer.not_measured(found))


def test_one_run_with_a_test_split_keeps_the_ranking_by_test():
    plan = read(BASE + "methods: [head, lora]")
    figures = {"head": {"test": 0.5, "validation": 0.6}, "lora": None}
    found = compared(plan, lambda run: figures[run.cell.method])
    assert {row.ranked_by for row in found.rows} == {"test"}


def test_equal_means_share_a_place_and_the_next_one_is_skipped():
    score = {"head": 0.7, "bitfit": 0.9, "lora": 0.9, "full": 0.8}
    plan = read(BASE + "methods: [head, bitfit, lora, full]")
    found = compared(plan, lambda run: {"test": score[run.cell.method], "validation": 0.1})
    places = {"head": 4, "bitfit": 1, "lora": 1, "full": 3}
    assert {row.method: row.place for row in found.rows} == places


def test_a_metric_that_is_not_defined_leaves_the_mean_and_is_counted():
    found = compared(read(TWO), lambda run: {"test": None if run.seed else 0.5, "validation": 0.5})
    assert found.rows[0].test.mean == 0.5
    assert found.rows[0].not_paired == ["1 of 2 seeds"]


def test_runs_that_differ_in_more_than_the_method_are_flagged():
    plan = read(BASE + "methods: [head, lora, bitfit, full]")
    odd = {
        "head": {"steps": 3},
        "lora": {"fingerprint": "other"},
        "bitfit": {},
        "full": {},
    }
    found = compared(plan, lambda run: {"test": 0.5, "validation": 0.5, **odd[run.cell.method]})
    assert {row.method: row.not_paired for row in found.rows} == {
        "head": ["optimizer steps: 3, others 2"],
        "lora": ["data fingerprint: other, others same"],
        "bitfit": [],
        "full": [],
    }


def test_data_that_differs_by_seed_alone_is_paired_all_the_same():
    own = lambda run: {"test": 0.5, "validation": 0.5, "fingerprint": f"split {run.seed}"}  # noqa: E731
    found = compared(read(TWO + "split_with_seed: true"), own)
    assert [row.not_paired for row in found.rows] == [[], []]


@pytest.mark.parametrize("of_tasks", [False, True])
@pytest.mark.parametrize(("carved", "how"), [("test", "seeds with their splits, paired"),
                                             ("validation", "seeds, paired")])  # fmt: skip
def test_seeds_that_carve_their_own_test_split_are_judged_as_such(carved, how, of_tasks):
    plan = read(TWO + "split_with_seed: true\n")
    done = []
    for place, planned in enumerate(plan.runs):
        finish(Path("made"), planned, validation=0.5, test=0.5 + place**2 / 100)
        note = {"kind": f"{carved}_carved", "rows": 20}
        data = {"sizes": {"test": 20}, "original_sizes": {"train": 80}, "notes": [note]}
        if (
            of_tasks
        ):  # a mixture's record has its tasks', and those alone what they were carved from
            given = {"sizes": {"test": 50}, "original_sizes": {"train": 70}, "notes": []}
            data = {"sizes": {"test": 70}, "notes": [note], "tasks": {"a": data, "b": given}}
        run = Run(Path("made") / planned.name)
        files.write_json(run.environment, {"backbone": {}, "data": data})
        done.append(records.Done(planned, run.path))
    (found,) = study.compare(plan, done).differences
    assert found.procedure == how
    gaps = np.diff([[0.5, 0.54], [0.51, 0.59]], axis=1)[:, 0]
    factor = 1 / 2 + (20 / 80 if carved == "test" else 0)
    assert found.standard_error == pytest.approx(math.sqrt(np.var(gaps, ddof=1) * factor))


def test_a_seed_that_failed_is_a_hole_and_the_row_is_not_paired():
    figures = {"test": 0.5, "validation": 0.5}
    found = compared(read(TWO), lambda run: None if run.name == "head-seed1" else dict(figures))
    assert [hole["run"] for hole in found.holes] == ["head-seed1"]
    assert found.rows[0].holes == {1: "Diverged: too fast"}
    assert found.rows[0].not_paired == ["1 of 2 seeds"]
    assert found.rows[1].not_paired == []


# Choosing


def test_a_setting_is_chosen_by_validation_and_never_by_test():
    better = {"0.001": {"validation": 0.9, "test": 0.1}, "0.01": {"validation": 0.2, "test": 0.8}}
    found = compared(read(GRID), lambda run: dict(better[rate(run)]))
    assert [row.setting for row in found.rows] == [{"training.learning_rate": "0.001"}] * 2
    assert [row.test.mean for row in found.rows] == [pytest.approx(0.1)] * 2
    grid = {(row.method, *row.setting.values()): row.chosen for row in found.grid}
    assert grid == {("head", "0.001"): True, ("head", "0.01"): False,
                    ("lora", "0.001"): True, ("lora", "0.01"): False}  # fmt: skip


def test_a_choice_by_what_is_written_wants_it_of_validation():
    text = """
base: {backbone: {model: smollm2_135m}, task: {name: word_problems}}
methods: [lora]
vary: {training.learning_rate: [1e-4, 1e-3]}
choose: {by: validation}
"""
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert [problem.kind for problem in caught.value.problems] == ["unscored"]
    read(text, "base.task.generation.splits=[validation, test]")


def test_the_mean_over_seeds_chooses_and_of_equals_the_first():
    value = {("0.001", 0): 0.9, ("0.001", 1): 0.1, ("0.01", 0): 0.6, ("0.01", 1): 0.6}
    figures = lambda run: {"validation": value[rate(run), run.seed], "test": 0.5}  # noqa: E731
    assert compared(read(GRID), figures).rows[0].setting == {"training.learning_rate": "0.01"}
    value |= {("0.001", 0): 0.6, ("0.001", 1): 0.6}
    Path("made").rename("made-before")
    assert compared(read(GRID), figures).rows[0].setting == {"training.learning_rate": "0.001"}


def test_a_setting_with_a_hole_cannot_be_chosen():
    def figures(run):
        slow = {"validation": 0.4, "test": 0.4}
        fast = {"validation": 0.9, "test": 0.9}
        return slow if rate(run) == "0.001" else None if run.seed else fast

    found = compared(read(GRID), figures)
    assert {row.setting["training.learning_rate"] for row in found.rows} == {"0.001"}
    assert len(found.holes) == 2


def test_a_method_of_which_no_setting_could_be_chosen_stays_in_the_table():
    score = {"validation": 0.5, "test": 0.5}
    found = compared(read(GRID), lambda run: None if run.cell.method == "head" else dict(score))
    (row,) = [row for row in found.rows if row.method == "head"]
    assert row.rank is None
    assert set(row.holes.values()) == {"Diverged: too fast"}


def test_choosing_by_the_first_seed_runs_only_what_is_chosen_at_the_others(monkeypatch):
    plan, begun = read(GRID.replace("by: validation", "by: validation, seeds: first")), []

    def carry_out(folder, document, orders, stop, watch):
        """Stands for the process of a run, which another test makes for true."""
        planned = next(run for run in plan.runs if run.document is document)
        best = rate(planned) == "0.01"
        finish(folder.parent, planned, validation=0.9 if best else 0.1, test=0.5)
        begun.append(planned.name)
        return child.Ended(None)

    monkeypatch.setattr(child, "carry_out", carry_out)
    done = study.carry_out(plan, Path("out"), quiet=True)
    assert sorted(begun) == sorted(
        [f"{m}-learning_rate={r}-seed0" for m in ("head", "lora") for r in ("0.001", "0.01")]
        + [f"{m}-learning_rate=0.01-seed1" for m in ("head", "lora")]
    )
    found = study.compare(plan, done)
    assert [list(row.test.values) for row in found.rows] == [[0, 1]] * 2
    assert [list(row.validation.values) for row in found.grid] == [[0]] * 4


@pytest.mark.parametrize(
    ("widen", "seeds", "tried"),
    [
        (0, "first", [0.001, 0.01]),
        (1, "first", [0.001, 0.01, 0.1]),
        (5, "first", [0.001, 0.01, 0.1, 1.0]),
        (5, "all", [0.001, 0.01, 0.1, 1.0]),
    ],
)
def test_a_grid_is_made_wider_while_the_best_stands_at_its_end(monkeypatch, widen, seeds, tried):
    """The best rate is 0.1, one step beyond the grid; the one behind it shows that."""
    plan = read(GRID.replace("by: validation", f"by: validation, seeds: {seeds}, widen: {widen}"))
    begun = []

    def carry_out(folder, document, orders, stop, watch):
        """Stands for the process of a run, which another test makes for true."""
        file = runfile.resolve(document)
        score = 1 - abs(math.log10(file.training.learning_rate) + 1) / 9
        run = SimpleNamespace(name=document.values["name"], file=file)
        assert run.name == folder.name
        finish(folder.parent, run, validation=score, test=score)
        begun.append((file.method.name, file.training.learning_rate, file.seed))
        return child.Ended(None)

    monkeypatch.setattr(child, "carry_out", carry_out)
    done = study.carry_out(plan, Path("out"), quiet=True)
    assert {rate for _, rate, _ in begun} == {*tried}
    assert len({*begun}) == len(begun)
    found = study.compare(plan, done)
    best = f"{min(tried[-1], 0.1):g}"
    assert [row.setting["training.learning_rate"] for row in found.rows] == [best] * 2
    assert [list(row.test.values) for row in found.rows] == [[0, 1]] * 2
    edges = {"training.learning_rate": "largest"} if widen < 2 else {}
    assert [own.edges for own in found.tunings] == [edges] * 2
    again = len(begun)
    study.carry_out(plan, Path("out"), quiet=True)
    assert len(begun) == again


def widened(text, best):
    """Return a study that is made wider once, with what was added; `best` says which run of it is."""
    plan = read(text)
    done = []
    for planned in plan.runs:
        score = 0.9 if best(planned) else 0.1
        finish(Path("made"), planned, validation=score, test=score)
        done.append(records.Done(planned, Path("made") / planned.name))
    return plan, done, beyond.beyond(plan, done)


def test_what_widens_a_grid_draws_its_split_with_its_own_seed():
    text = GRID.replace("by: validation", "by: validation, widen: 1") + "split_with_seed: true\n"
    plan, done, added = widened(text, lambda run: rate(run) == "0.01")
    splits = {run.seed: run.file.task.config.split_seed for run in added}
    other = beyond.at_seed(plan, added[0], 1, beyond.names(plan, done))
    assert (splits, other.file.task.config.split_seed) == ({0: 0, 1: 1}, 1)


def test_a_grid_over_sections_with_unlike_keys_is_made_wider():
    sections = "[{name: cosine, warmup: 0.1}, {name: cosine, warmup: 0.2}, {name: constant}]"
    text = GRID.replace("vary: {", f"vary: {{training.schedule: {sections}, ")
    text = text.replace("by: validation", "by: validation, widen: 1")
    _, _, added = widened(text, lambda run: run.file.training.schedule.warmup == 0.2)
    assert any(run.file.training.schedule.warmup > 0.2 for run in added)


def test_values_that_tables_show_alike_are_refused():
    with pytest.raises(ConfigError) as caught:
        read(GRID.replace("vary: {", "vary: {training.clip_norm: [0.12345671, 0.12345672], "))
    assert "alike" in str(caught.value)


def test_names_that_are_cut_do_not_make_an_added_run_one_that_was_there():
    data = "./" * 60 + "train.csv"
    text = GRID.replace("vary: {", f"vary: {{task.files.train: [{data}], ")
    text = text.replace("by: validation", "by: validation, widen: 1")
    plan, _, added = widened(text, lambda run: rate(run) == "0.01")
    named = [run.name for run in (*plan.runs, *added)]
    assert added
    assert len({*named}) == len(named)
    seen = Folders(Path("made"))
    assert len({seen.identity(run) for run in (*plan.runs, *added)}) == len(named)


@pytest.mark.parametrize(
    ("values", "edge", "wanted"),
    [([1, 2, 4], "largest", 8), ([0.01, 0.1], "smallest", 0.001), ([0, 0.1], "largest", 0.2),
     ([0, 0.1], "smallest", -0.1)],
)  # fmt: skip
def test_the_value_beyond_an_end_is_as_far_from_it_as_its_neighbour(values, edge, wanted):
    assert beyond.further(values, edge) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("values", "edge", "wanted"),
    [([4, 6, 8], "largest", 11), ([4, 6, 8], "smallest", 2), ([1, 2], "smallest", 0.5),
     ([10001, 10002], "largest", 10004), ([3, 9, 27], "largest", 81), ([0, 2], "smallest", -2)],
)  # fmt: skip
def test_a_whole_number_beyond_an_end_is_whole_and_never_nearer(values, edge, wanted):
    assert beyond.further(values, edge, whole=True) == wanted


# What is written


def test_text_that_a_spreadsheet_would_run_is_defused():
    rows = [{"=a": "=HYPERLINK(1)", "b": -1.5, "c": "-x"}]
    assert spreadsheet.text(rows) == "'=a,b,c\n'=HYPERLINK(1),-1.5,'-x\n"


def test_the_command_leaves_records_tables_and_page_beside_each_other():
    plan = read(TWO)
    for planned in plan.runs:
        finish(Path("out/runs"), planned, test=0.5 + 0.1 * planned.seed, validation=0.5)
    done = [records.Done(run, Path("out/runs") / run.name) for run in plan.runs]
    _comparison.report([(Path("out"), study.compare(plan, done))], as_json=False)
    written = {path.name for path in Path("out").iterdir()}
    tables_of_all = {"comparison.json", "comparison.csv", "differences.csv", "runs.csv"}
    assert {*tables_of_all, "comparison.html"} <= written
    kept = json.loads(Path("out/comparison.json").read_text())
    assert [pair["seeds"] for pair in kept["differences"]] == [2]


def test_json_and_csv_hold_every_run():
    plan = read(TWO)
    found = compared(plan, lambda _: {"test": 0.25, "validation": 0.5})
    study.write(found, Path("made"))
    assert len(json.loads(Path("made/comparison.json").read_text())["runs"]) == 4
    lines = Path("made/runs.csv").read_text().splitlines()
    assert len(lines) == 5
    assert (
        dict(zip(lines[0].split(","), lines[1].split(","), strict=True))["test/accuracy"] == "0.25"
    )


# Carried out for true


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_one_method_fails_and_the_others_finish_and_a_second_call_repeats_nothing():
    bad = "{name: dora, targets: [no_such_layer]}"
    Path("study.yaml").write_text(BASE + f"methods: [head, {bad}, lora]\n")
    first = invoke("compare", "study.yaml", "--out", "out", "--json")
    assert first.exit_code == StudyIncomplete.exit_code == 10
    found = json.loads(first.stdout)
    assert found["error"]["type"] == "StudyIncomplete"
    assert [hole["run"] for hole in found["holes"]] == ["dora-seed0"]
    assert "no_such_layer" in found["holes"][0]["cause"]
    assert {row["method"]: row["rank"] is not None for row in found["rows"]} == {
        "head": True, "dora": False, "lora": True,
    }  # fmt: skip
    assert all(row["peak_memory_bytes"] > 0 for row in found["rows"] if row["rank"])
    assert "no_such_layer" in Path("out/comparison.html").read_text()
    results = {p: p.stat().st_mtime_ns for p in Path("out/runs").glob("*/result.json")}
    assert len(results) == 2
    again = invoke("compare", "study.yaml", "--out", "out")
    assert again.exit_code == 10
    assert "no_such_layer" in again.stdout
    assert results == {p: p.stat().st_mtime_ns for p in Path("out/runs").glob("*/result.json")}


@pytest.mark.slow
def test_an_unfinished_run_is_gone_on_with_and_another_config_stands_beside():
    plan = read(BASE + "methods: [head]")
    (before,) = study.carry_out(plan, Path("out"), quiet=True)
    adapter = (before.folder / "adapter/head.safetensors").read_bytes()
    (before.folder / "result.json").unlink()
    (after,) = study.carry_out(plan, Path("out"), quiet=True)
    assert after.folder == before.folder
    assert "step 2" in Run(after.folder).log.read_text()
    assert (after.folder / "adapter/head.safetensors").read_bytes() == adapter
    changed = read(BASE + "methods: [head]", "base.training.max_steps=1")
    (other,) = study.carry_out(changed, Path("out"), quiet=True)
    assert other.folder.name == "head-seed0-2"
    assert other.result["steps"] == 1


def wait_for(path, stop):
    """Return the number of the process at work as soon as `path` has something in it."""
    until(lambda: path.is_file() and path.stat().st_size and stop())
    return stop()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run_at_work_and_the_same_command_goes_on(number):
    plan = read(BASE + "methods: [head, lora]", *LONG)
    metrics = Path("out/runs/head-seed0/metrics.jsonl").absolute()
    send = lambda: (wait_for(metrics, lambda: 1), os.kill(os.getpid(), number))  # noqa: E731
    beside(send)
    with pytest.raises(Stopped, match="go on with: the same") as caught:
        study.carry_out(plan, Path("out"), quiet=True, again="the same")
    assert caught.value.exit_code == 128 + number
    assert not Run(Path("out/runs/head-seed0")).finished
    assert not Path("out/runs/lora-seed0").exists()
    done = study.carry_out(plan, Path("out"), quiet=True)
    assert [run.cause for run in done] == [None, None]
    assert "going on from step" in Run(done[0].folder).log.read_text()


@pytest.mark.slow
def test_a_run_that_the_system_kills_is_a_hole_that_says_so():
    plan, stop = read(BASE + "methods: [head]", *LONG), child.Stop()
    metrics = Path("out/metrics.jsonl").absolute()
    kill = lambda: os.kill(wait_for(metrics, lambda: next(iter(stop.children))), signal.SIGKILL)  # noqa: E731
    beside(kill)
    ended = child.carry_out(Path("out"), plan.runs[0].document, child.Orders(quiet=True), stop)
    assert "by SIGKILL" in ended.cause


@pytest.mark.slow
def test_two_processes_never_carry_out_one_study_at_once():
    plan = read(TWO)
    context = child.FORKS
    begun, end = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=("out", begun, end))
    holder.start()
    assert begun.wait(60)
    with pytest.raises(ConfigError, match="in use by process"):
        study.carry_out(plan, Path("out"), quiet=True)
    end.set()
    holder.join()


def _hold(path, begun, end):
    with Run(Path(path)).lock():
        begun.set()
        end.wait(60)


@pytest.mark.slow
def test_two_at_a_time_come_to_the_same_scores_and_their_times_are_not_shown():
    plan = read(TWO)
    alone = study.compare(plan, study.carry_out(plan, Path("out"), quiet=True))
    beside = study.compare(plan, study.carry_out(plan, Path("beside"), quiet=True, crew=Crew(2)))
    assert [row.test.values for row in beside.rows] == [row.test.values for row in alone.rows]
    assert {row.seconds for row in beside.rows} == {None}
    assert None not in {row.seconds for row in alone.rows}
    again = study.compare(plan, study.carry_out(plan, Path("beside"), quiet=True))
    assert {row.seconds for row in again.rows} == {None}


@pytest.mark.slow
def test_the_time_of_a_run_that_was_stopped_beside_another_is_not_shown_when_it_ends_alone():
    plan = read(BASE + "methods: [head, lora]", *LONG)
    paths = [Path(f"out/runs/{run.name}/metrics.jsonl").absolute() for run in plan.runs]
    beside(lambda: [*(wait_for(p, lambda: 1) for p in paths), os.kill(os.getpid(), signal.SIGTERM)])
    with pytest.raises(Stopped):
        study.carry_out(plan, Path("out"), quiet=True, crew=Crew(2))
    assert not any(Run(path.parent).finished for path in paths)
    found = study.compare(plan, study.carry_out(plan, Path("out"), quiet=True))
    assert {row.seconds for row in found.rows} == {None}
