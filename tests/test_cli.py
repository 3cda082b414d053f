"""The command line: its shape is frozen, its errors are one message, its JSON is one object."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import graftlab
from graftlab import cli, config, registry
from graftlab.commands import check
from graftlab.errors import LOGGED, CheckpointError, Stopped

FROZEN = Path(__file__).with_name("commands.txt")


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text("backbone: {model: minilm}\ntask: {name: sst2}\nmethod: {name: lora}\n")
    return path


def shape():
    """Return one line per command: its arguments and options, as they are typed."""
    group = typer.main.get_command(cli.app)
    lines = []
    for name in registry.names("commands"):
        words = []
        for parameter in group.get_command(None, name).params:
            metavar = parameter.metavar or parameter.name.upper()
            if parameter.param_type_name == "argument":
                words.append(metavar)
            else:
                takes = "" if parameter.is_flag else f" {metavar}"
                again = "..." if parameter.multiple else ""
                words.append(f"[{'|'.join(parameter.opts)}{takes}]{again}")
        lines.append(" ".join([name, *words]))
    return lines


def test_commands_and_flags_are_the_frozen_ones():
    """After a change that is meant: GRAFTLAB_UPDATE=1 pytest tests/test_cli.py."""
    if os.environ.get("GRAFTLAB_UPDATE"):
        FROZEN.write_text("\n".join(shape()) + "\n", encoding="utf-8")
    assert shape() == FROZEN.read_text(encoding="utf-8").splitlines()


def test_every_command_takes_json():
    assert [line for line in shape() if "[--json]" not in line] == []


def test_help_lists_every_command_with_its_first_docstring_line():
    result = CliRunner().invoke(
        cli.app, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    )
    text = " ".join(result.output.split())
    for name in registry.names("commands"):
        assert f"{name} {registry.describe('commands', name)}" in text


def test_the_version_is_the_packages():
    assert invoke("--version").output == f"graftlab {graftlab.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chekc"], "'check'"),
        (["check"], "FILE"),
        (["check", "a.yaml", "--modle"], "--model"),
        (["init", "template", "--out"], "--out"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_was_meant(arguments, said):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_wrong_run_file_is_one_message_on_stderr(run_file):
    result = invoke("check", run_file, "--set", "method.rnak=4")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("graftlab: --set method.rnak: unknown key in method: 'rnak'.")
    assert "Traceback" not in result.output


def test_with_json_an_error_is_an_object_on_stdout(run_file):
    result = invoke("check", run_file, "--set", "method.rnak=4", "--json")
    error = json.loads(result.stdout)["error"]
    assert (error["type"], error["exit_code"], result.exit_code) == ("ConfigError", 2, 2)
    assert "'rank'" in error["message"]
    (problem,) = error["problems"]
    assert (problem["kind"], problem["key"], problem["given"]) == ("unknown", "method.rnak", "rnak")
    assert problem["argument"] == "--set method.rnak"
    assert "rank" in problem["allowed"]
    usage = invoke("check", "--nope", "--json")
    assert json.loads(usage.stdout)["error"]["type"] == "UsageError"
    assert usage.exit_code == 2


def fail_with(monkeypatch, error):
    def command():
        raise error

    monkeypatch.setattr(check, "command", command)
    return invoke("check")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (CheckpointError("no checkpoint"), 7),
        (Stopped("saved", 143), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_exits_with_its_own_code(monkeypatch, error, exit_code):
    result = fail_with(monkeypatch, error)
    assert result.exit_code == exit_code
    assert str(error) in result.stderr


def test_a_bug_shows_its_traceback_where_there_is_no_log(monkeypatch):
    assert isinstance(fail_with(monkeypatch, ZeroDivisionError("x")).exception, ZeroDivisionError)


def test_a_bug_that_stands_in_a_runs_log_is_one_message(monkeypatch):
    error = ZeroDivisionError("by nothing")
    error.add_note(f"{LOGGED}runs/a/run.log.")
    result = fail_with(monkeypatch, error)
    assert result.exit_code == 1
    assert "ZeroDivisionError:" in result.stderr
    assert "runs/a/run.log" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_says_what_will_run(run_file):
    result = invoke("check", run_file, "--json", "--set=method.rank=4")
    found = json.loads(result.stdout)
    assert found["ok"] is True
    assert found["config"]["method"]["rank"] == 4
    assert "run.yaml" in invoke("check", run_file).stdout


def test_the_last_set_wins_however_it_is_written(run_file):
    arguments = ("check", run_file, "--json", "--set=method.rank=4", "--set", "method.rank=5")
    assert json.loads(invoke(*arguments).stdout)["config"]["method"]["rank"] == 5


def test_check_with_the_model_names_the_layers_that_the_targets_are(run_file):
    run_file.write_text(
        "backbone: {kind: tiny, layers: 1}\ntask: {name: sst2}\n"
        "method: {name: lora, targets: [query]}\n"
    )
    model = json.loads(invoke("check", run_file, "--model", "--json").stdout)["model"]
    assert len(model["targets"]) == 1
    assert model["targets"][0].endswith(".query")
    wrong = invoke("check", run_file, "--model", "--set", "method.targets=[qeury]")
    assert wrong.exit_code == 2
    assert "query" in wrong.stderr
    large = invoke("check", run_file, "--model", "--set", "method.rank=33")
    assert (large.exit_code, "method.rank" in large.stderr) == (2, True)


def test_list_names_everything_with_what_it_is():
    found = json.loads(invoke("list", "--json").stdout)
    assert list(found) == [
        "methods",
        "hooks",
        "tasks",
        "backbones",
        "metrics",
        "plots",
        "analyses",
        "quantities",
        "recipes",
        "runs",
    ]
    assert set(found["methods"]) == set(registry.names("methods"))
    assert set(found["recipes"]) == set(config.recipes())
    assert all(
        about for what in ("methods", "tasks", "metrics", "plots") for about in found[what].values()
    )
    assert "'methods'" in invoke("list", "method").stderr


@pytest.mark.parametrize("recipe", ["template", "glue/sst2-lora"])
def test_init_copies_a_recipe_that_works_where_it_lies_and_never_overwrites(run_file, recipe):
    assert invoke("init", recipe, "--out", "mine.yaml").exit_code == 0
    assert Path("mine.yaml").read_bytes() == config.recipes()[recipe].read_bytes()
    assert invoke("check", "mine.yaml").exit_code == 0
    again = invoke("init", recipe, "--out", "mine.yaml")
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)


def test_init_of_an_unknown_recipe_names_the_nearest(run_file):
    assert "'template'" in invoke("init", "templat").stderr
    assert invoke("init", "template", "--out", "no/such/folder/x.yaml").exit_code == 8


def test_show_gives_a_runs_config_metrics_and_result(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    lines = "".join(f'{{"step": {step}}}\n' for step in range(9))
    (tmp_path / "metrics.jsonl").write_text(lines)
    shown = json.loads(invoke("show", tmp_path, "--json").stdout)
    assert shown["config"] == {"seed": 3}
    assert [line["step"] for line in shown["metrics"]] == [4, 5, 6, 7, 8]
    assert (shown["finished"], shown["result"]) == (False, None)
    assert f"graftlab resume {tmp_path}" in invoke("show", tmp_path).stdout
    (tmp_path / "result.json").write_text('{"name": "x"}')
    assert "(finished)" in invoke("show", tmp_path).stdout


def test_show_of_what_is_no_run_names_the_nearest(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("seed: 3\n")
    result = invoke("show", tmp_path / "mien")
    assert (result.exit_code, "'mine'" in result.stderr) == (2, True)


def test_show_schema_prints_a_json_schema():
    assert json.loads(invoke("show", "schema").stdout)["title"] == "graftlab run file"


@pytest.mark.quick("*latin*")
@pytest.mark.parametrize(
    "environment",
    [
        {"TERM": "dumb"},
        {"NO_COLOR": "1"},
        {"COLUMNS": "40"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=str,
)
def test_any_terminal_gets_plain_lines(environment, tmp_path):
    """What is said holds a character that no such terminal has, and no control sequence."""
    (tmp_path / "日本.yaml").write_text("seed: 0\n")
    result = subprocess.run(
        [sys.executable, "-m", "graftlab", "check", "日本.yaml"],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert b"backbone is missing" in result.stderr
    assert b"\x1b" not in result.stderr + result.stdout
    assert b"Traceback" not in result.stderr


@pytest.mark.slow  # a process of its own
def test_a_warning_of_a_library_is_shown_once_whoever_silences_others(tmp_path):
    (tmp_path / "loud.py").write_text(
        "import warnings\n"
        "from graftlab import cli, registry\n"
        "def command():\n"
        "    for _ in range(3):\n"
        "        with warnings.catch_warnings():\n"
        "            warnings.filterwarnings('ignore', message='another')\n"
        "            warnings.warn('said by a library')\n"
        "registry.find('commands', 'init').command = command\n"
        "cli.main()\n"
    )
    told = subprocess.run(
        [sys.executable, tmp_path / "loud.py", "init"], capture_output=True, text=True, check=True
    )
    assert told.stderr.count("UserWarning: said by a library") == 1
