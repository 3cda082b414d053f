"""Paths in a run file are relative to that file, those of `--set` to the shell's folder."""

import json
from pathlib import Path

import pytest

from graftlab import config, runfile, study
from graftlab.contracts import Note
from graftlab.errors import ConfigError, DataError, GraftlabError
from graftlab.rundir.run import Run

RUN = """
backbone: {kind: tiny}
task: {kind: classification, files: {train: data/rows.csv}, labels: [a, b]}
method: {name: lora}
"""
ROWS = "text,label\nfirst,a\nsecond,b\nthird,a\nfourth,b\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file below a folder; commands are given in another one, `shell`."""
    (tmp_path / "shell").mkdir()
    monkeypatch.chdir(tmp_path / "shell")

    def write(name: str, text: str = ROWS) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def resolve(path, *overrides):
    return runfile.resolve(config.read(path, overrides))


def model(write, folder, model_type="bert"):
    described = {"model_type": model_type, "architectures": ["AnyModel"]}
    return write(f"{folder}/config.json", json.dumps(described)).parent


def problem(error):
    (found,) = error.value.problems
    return found


def test_a_path_is_relative_to_the_file_that_it_stands_in(write):
    rows = write("project/data/rows.csv")
    file = resolve(write("project/run.yaml", RUN))
    assert file.task.config.files.train == rows
    assert file.resolved["task"]["files"]["train"] == str(rows)


def test_each_file_of_a_chain_has_its_own_folder(write):
    rows, tests = write("base/data/rows.csv"), write("top/tests.csv", "text,label\nfifth,a\n")
    write("base/run.yaml", RUN)
    text = "extends: ../base/run.yaml\ntask: {files: {test: tests.csv}}\npaths: {runs: ../runs}\n"
    resolved = resolve(write("top/run.yaml", text)).resolved
    files = resolved["task"]["files"]
    assert (files["train"], files["test"]) == (str(rows), str(tests))
    assert resolved["paths"]["runs"] == str(tests.parents[1] / "runs")


def test_an_override_is_relative_to_the_shell_and_one_from_a_file_to_that_file(write):
    run = write("project/run.yaml", RUN)
    write("project/data/rows.csv")
    here = write("shell/rows.csv")
    assert resolve(run, "task.files.train=rows.csv").task.config.files.train == here
    assert resolve(run, "task.files={train: rows.csv}").task.config.files.train == here
    other = write("other/rows.csv")
    layer = write("other/layer.yaml", "task: {files: {train: rows.csv}}\n")
    assert resolve(run, f"@{layer}").task.config.files.train == other


def test_runs_go_below_the_shell_where_no_file_says_where(write, tmp_path):
    write("project/data/rows.csv")
    run = write("project/run.yaml", RUN)
    assert resolve(run).resolved["paths"]["runs"] == str(tmp_path / "shell/runs")


def test_a_recipe_is_read_as_if_it_stood_in_the_shells_folder(write):
    folder = model(write, "shell/demo/backbone", "vit")
    planned = study.read("demo/digits")
    assert planned.runs[0].file.backbone.config.model == str(folder)


def test_the_paths_of_a_study_are_relative_to_the_file_that_says_them(write):
    rows, other = write("base/data/rows.csv"), write("study/rows.csv")
    write("base/run.yaml", RUN)
    text = (
        "base: ../base/run.yaml\ntasks:\n  - {files: {train: rows.csv}, test_share: 0.2}\n  - {}\n"
    )
    plan = study.read(write("study/study.yaml", text))
    assert {run.file.task.config.files.train for run in plan.runs} == {rows, other}


def test_the_tasks_of_a_mixture_are_read_from_beside_its_file(write):
    first, second = write("project/one.csv"), write("project/sub/two/train.csv")
    task = """
  kind: mixture
  each: {labels: [a, b]}
  tasks:
    - {as: one, kind: classification, files: {train: one.csv}}
    - {as: two, kind: classification, data_dir: sub/two}
"""
    run = write(
        "project/run.yaml", f"backbone: {{kind: tiny}}\nmethod: {{name: lora}}\ntask:{task}"
    )
    parts = resolve(run).task.parts
    assert parts["one"].config.files.train == first
    assert parts["two"].config.data_dir == second.parent


@pytest.mark.parametrize("name", ["models/mine", "./models/mine", "../project/models/mine"])
def test_the_folder_of_a_model_is_looked_for_beside_the_file(write, name):
    folder = model(write, "project/models/mine")
    write("project/data/rows.csv")
    file = resolve(write("project/run.yaml", RUN.replace("kind: tiny", f"model: {name}")))
    assert file.backbone.name == "encoder"
    assert file.resolved["backbone"]["model"] == str(folder)


def test_a_folder_goes_before_the_model_of_its_name_and_this_is_said(write):
    folder = model(write, "project/minilm")
    write("project/data/rows.csv")
    file = resolve(write("project/run.yaml", RUN.replace("kind: tiny", "model: minilm")))
    assert Note.of("folder_of_that_name", model="minilm", folder=str(folder)) in file.notes


def test_a_model_that_lies_in_the_shells_folder_alone_is_not_taken_for_the_files(write):
    model(write, "shell/models/mine")
    write("project/data/rows.csv")
    run = write("project/run.yaml", RUN.replace("kind: tiny", "kind: encoder, model: models/mine"))
    with pytest.raises(ConfigError) as error:
        resolve(run)
    found = problem(error)
    assert (found.kind, found.place.line) == ("ambiguous", 2)
    assert "'../shell/models/mine'" in found.said


@pytest.mark.parametrize(
    "data", ["files: {train: data/rows.csv}", "data_dir: data"], ids=["file", "folder"]
)
def test_what_is_missing_is_named_whole_with_how_to_write_what_lies_in_the_shells_folder(
    write, data, tmp_path
):
    write("shell/data/rows.csv"), write("shell/data/train.csv")
    run = write("project/run.yaml", RUN.replace("files: {train: data/rows.csv}", data))
    with pytest.raises(DataError) as error:
        resolve(run)
    found = problem(error)
    assert str(tmp_path / "project/data") in found.said
    written = "../shell/data/rows.csv" if "files" in data else "../shell/data"
    assert any(repr(written) in str(remedy) for remedy in found.remedies)
    assert found.place.line == 3


def test_a_run_that_was_made_portable_names_its_model_from_the_shells_folder(write):
    folder = model(write, "shell/mine")
    write("project/data/rows.csv")
    file = resolve(
        write("project/run.yaml", RUN.replace("kind: tiny", "kind: encoder, model: ../shell/mine"))
    )
    kept = {**file.resolved, "backbone": {**file.resolved["backbone"], "model": "./mine"}}
    run = Run(write("fetched/config.yaml", config.dump(kept)).parent)
    assert runfile.of_run(run).backbone.config.model == str(folder)


def test_a_path_whose_variable_is_not_set_is_refused_at_its_key(write, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    run = write("project/run.yaml", RUN.replace("data/rows.csv", "$NOT_SET/rows.csv"))
    with pytest.raises(GraftlabError) as error:
        resolve(run)
    assert problem(error).place.key == ("task", "files", "train")
