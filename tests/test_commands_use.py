"""run, resume, predict, evaluate and export as their users see them."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest
from finished_runs import LABELS, finish
from typer.testing import CliRunner

from graftlab import cli, inference
from graftlab.commands import _options, _sources
from graftlab.contracts import NOTED, Note
from graftlab.errors import CheckpointError, Stopped
from graftlab.runs import session

TEXTS = ["fine glad", "poor", "well ah oh"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("use")


@pytest.fixture(scope="module")
def run(folder):
    return finish(folder, {"name": "lora"})


def invoke(*arguments, stdin=None):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], input=stdin)


def said(*arguments, stdin=None):
    """Return the JSON lines of a command that goes well."""
    result = invoke(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def kind_of(*arguments):
    """Return the exit code of a command that goes wrong and the kind of its problem."""
    result = invoke(*arguments, "--json")
    [problem] = json.loads(result.stdout)["error"]["problems"]
    return result.exit_code, problem["kind"]


def process(*arguments, **kwargs):
    environment = {**os.environ, **kwargs.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "graftlab", *map(str, arguments)],
        env=environment, capture_output=True, check=False, **kwargs,
    )  # fmt: skip


# run and resume


def test_a_run_ends_with_its_scores_and_one_json_object_if_asked(folder, run, tmp_path):
    result = invoke("run", folder / "lora.yaml", "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout
    assert f"Everything is in {tmp_path / 'a'}" in result.stdout.replace("\n", "")
    again = invoke("run", folder / "lora.yaml", "--out", tmp_path / "b", "--json")
    assert json.loads(again.stdout)["run"] == str(tmp_path / "b")
    assert "step" not in again.stderr


def test_a_finished_run_says_so_and_how_to_train_longer(folder, run):
    assert kind_of("run", folder / "lora.yaml") == (2, "finished")
    again = invoke("run", folder / "lora.yaml")
    assert {"--new,", "--out."} <= set(again.stderr.split())
    resumed = invoke("resume", run.path)
    assert resumed.exit_code == 0
    assert "finished already" in resumed.stderr
    assert "training.max_steps" in resumed.stderr
    assert "accuracy" in resumed.stdout
    assert json.loads(invoke("resume", run.path, "--json").stdout)["steps"] == 4


@pytest.mark.slow
def test_new_starts_another_beside_it(folder, run):
    first, second = (said("run", folder / "lora.yaml", "--new", "--json")[0] for _ in range(2))
    assert [first["run"], second["run"]] == [f"{run.path}-2", f"{run.path}-3"]


def test_a_run_with_checkpoints_is_resumed_and_not_written_over(folder, run, tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    (out / "config.yaml").write_text(run.config.read_text())
    (out / "checkpoints" / "step-000002").mkdir(parents=True)
    result = invoke("run", folder / "lora.yaml", "--out", out)
    assert result.exit_code == 2
    assert f"graftlab resume {out}" in result.stderr
    (out / "checkpoints" / "step-000002").rmdir()
    assert said("resume", out, "--json")[0]["steps"] == 4


def test_a_folder_of_somebody_else_is_left_alone(folder, run, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    assert kind_of("run", folder / "lora.yaml", "--out", tmp_path) == (2, "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert invoke("resume", tmp_path).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckpointError("none is whole"), 7),
        (Stopped("SIGINT: saved at step 3", 130), 130),
        (Stopped("SIGTERM: saved at step 3", 143), 143),
        (KeyboardInterrupt(), 130),
    ],
    ids=["checkpoint", "interrupted", "terminated", "at once"],
)
def test_how_a_run_ended_is_its_exit_code(folder, run, tmp_path, monkeypatch, error, code):
    def stop(*arguments):
        raise error

    monkeypatch.setattr(session, "run", stop)
    result = invoke("run", folder / "lora.yaml", "--out", tmp_path / "a", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["error"]["exit_code"] == code


def test_wrong_data_and_wrong_models_have_exit_codes_of_their_own(folder, run, tmp_path):
    file = folder / "lora.yaml"
    train = f"task.files.train={tmp_path / 'none.csv'}"
    assert invoke("run", file, "--set", train, "--out", tmp_path / "a").exit_code == 3
    (tmp_path / "config.json").write_text("{broken")
    model = f"backbone.model={tmp_path}"
    assert invoke("run", file, "--set", model, "--out", tmp_path / "b").exit_code == 4
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


# predict


def test_predict_writes_a_json_object_a_line(run):
    [answer] = said("predict", run.path, "--input", "fine glad")
    assert answer == inference.load(run.path).predict("fine glad")[0]
    assert answer["name"] in LABELS


def test_predict_json_is_one_object(run):
    [whole] = said("predict", run.path, "--input", "fine glad", "--json")
    assert whole == {"predictions": said("predict", run.path, "--input", "fine glad")}


def test_all_inputs_that_cannot_be_used_are_named_at_once(run, tmp_path):
    file = tmp_path / "a.jsonl"
    lines = ['{"text": "fine"}', "no json", *(f'{{"text": {n}}}' for n in range(12)), '{"x": "a"}']
    file.write_text("\n".join(lines))
    result = invoke("predict", run.path, "--input", file, "--json")
    [problem] = json.loads(result.stdout)["error"]["problems"]
    assert (result.exit_code, problem["kind"], problem["file"]) == (3, "unusable", str(file))
    assert problem["given"] == [*range(2, 12)]
    assert problem["message"].endswith("and 4 more")


def test_an_input_without_a_word_is_said_or_refused_as_the_task_does(folder, run, caplog):
    assert len(said("predict", run.path, "--input", "-", stdin='{"text": " "}\n')) == 1
    notes = [record.args[0] for record in caplog.records if record.msg == "%s"]
    assert {(note.kind, note.fields["rows"]) for note in notes} == {("inputs_empty", (1,))}
    strict = finish(folder, {"name": "head"}, name="strict", task={"empty": "drop"})
    assert kind_of("predict", strict.path, "--input", "") == (3, "unusable")


def test_standard_input_holds_texts_or_objects(run, tmp_path):
    expected = inference.load(run.path).predict(TEXTS)
    assert said("predict", run.path, "--input", "-", stdin="\n".join(TEXTS)) == expected
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    assert said("predict", run.path, "--input", "-", stdin=rows) == expected


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "standard input has no line"),
        (b"\n \n", "standard input has no line"),
        ("süß\n".encode() + b"\xff\n", "row 2: byte 0xff"),
        (b"fine\na\0b\n", "row 2:"),
        (b'{"text": "a"}\nb\n', "row 2:"),
        (b'{"text": "\\ud800"}\n', "row 1:"),
        (b"\xff\xfef\0i", "utf-16"),
    ],
    ids=ascii,
)
def test_what_cannot_be_read_is_said_with_its_row(run, stdin, message):
    result = invoke("predict", run.path, "--input", "-", stdin=stdin)
    assert result.exit_code == 3
    assert message in result.stderr
    assert result.stdout == ""


def test_a_missing_file_is_no_text(run):
    for name in ("texts.jsonl", "./texts", "folder/", "/nowhere/at.all"):
        assert kind_of("predict", run.path, "--input", name) == (3, "missing")


def test_a_text_may_look_like_anything_else(run):
    for text in ("and/or", "see a.txt", "", "x" * 5000, "ends with ."):
        assert len(said("predict", run.path, "--input", text)) == 1


def test_a_control_character_in_the_data_does_not_reach_the_terminal(run, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"\x1b[31mtxt\u202e": "a"}) + "\n")
    result = invoke("predict", run.path, "--input", tmp_path / "a.jsonl")
    assert result.exit_code == 3
    assert r"\x1b[31mtxt\u202e" in result.stderr


def test_output_goes_to_a_file_that_was_not_there(run, tmp_path):
    out = tmp_path / "out.jsonl"
    arguments = ("predict", run.path, "--input", "fine", "--output")
    assert said(*arguments, out, "--json") == [{"output": str(out), "rows": 1}]
    assert json.loads(out.read_text(encoding="utf-8"))["index"] == 0
    before = out.read_bytes()
    assert kind_of(*arguments, out) == (2, "taken")
    assert out.read_bytes() == before
    assert kind_of(*arguments, tmp_path / "no" / "out.jsonl") == (2, "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_nothing_is_left_where_the_output_cannot_be_written(run, tmp_path, monkeypatch):
    from graftlab.rundir import files

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    result = invoke("predict", run.path, "--input", "fine", "--output", tmp_path / "a.jsonl")
    assert (result.exit_code, "No space left" in result.stderr) == (8, True)
    assert list(tmp_path.iterdir()) == []


def test_json_is_ascii_where_the_output_is_not_utf8(run, monkeypatch):
    from graftlab import terminal

    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stdout)
    terminal.say_json({"name": "naïve", "sign": "\U0001f600"})
    stdout.flush()
    assert json.loads(stdout.buffer.getvalue()) == {"name": "naïve", "sign": "\U0001f600"}
    assert stdout.buffer.getvalue().isascii()


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_quietly_in_any_locale(run, tmp_path):
    (tmp_path / "a.txt").write_text("naïve\n" * 3000, encoding="utf-8")
    command = f"{sys.executable} -m graftlab predict {run.path} --input {tmp_path}/a.txt | head -1"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, shell=True, capture_output=True, check=True, env=environment)
    assert list(json.loads(done.stdout)["probabilities"]) == list(LABELS)
    assert done.stderr == b""


def test_a_text_is_what_was_typed_in_a_locale_without_utf8(monkeypatch):
    typed = "naïve 😀"
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    assert _sources._as_typed(typed.encode().decode("ascii", "surrogateescape")) == typed
    latin = b"na\xefve".decode("ascii", "surrogateescape")
    assert _sources._as_typed(latin) == latin


# evaluate


def test_evaluate_gives_the_runs_numbers_and_leaves_its_predictions(run):
    before = run.predictions("test").read_bytes()
    [again] = said("evaluate", run.path, "--json")
    result = run.read_result()["metrics"]["test"]
    assert again["loss"] == result.pop("loss")["value"]
    assert again["metrics"] == result
    assert again["difference"] == {"rows": 0, "largest": 0.0}
    assert run.predictions("test").read_bytes() == before


def test_other_predictions_are_written_beside_the_runs(folder):
    run = finish(folder, {"name": "lora"}, name="other")
    path = run.predictions("test")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["prediction"] = (rows[0]["prediction"] + 1) % 3
    rows[1]["probabilities"][0] += 0.25
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.path / "manifest.json").unlink()  # as in runs of older versions, which have none
    before = path.read_bytes()
    [again] = said("evaluate", run.path, "--json")
    assert again["difference"] == {"rows": 1, "largest": pytest.approx(0.25)}
    assert again["predictions"] == str(path.with_name("test.again.jsonl"))
    assert path.read_bytes() == before


def test_a_split_without_predictions_gets_them(run):
    [again] = said("evaluate", run.path, "--split", "train", "--json")
    assert again["difference"] is None
    assert len(run.predictions("train").read_text().splitlines()) == 24
    assert kind_of("evaluate", run.path, "--split", "dev") == (3, "no_split")


# export


def test_export_says_where_it_is_and_for_which_backbone(run, folder, tmp_path):
    [done] = said("export", run.path, "--out", tmp_path / "a", "--json")
    assert done["config"]["base_model_name_or_path"] == str(folder / "bert")
    assert str(folder / "bert") in invoke("export", run.path, "--out", tmp_path / "b").stdout
    for arguments in (("--out", tmp_path / "a"), ("--out", tmp_path / "c", "--format", "onnx")):
        assert invoke("export", run.path, *arguments).exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_is_interrupted_says_by_which_command_it_goes_on():
    again = ["graftlab compare study.yaml", "--out there"]
    how = r"graftlab compare study\.yaml --out there$"
    with pytest.raises(Stopped, match=how) as caught, _options.going_on(again):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130


# warnings


def test_warnings_are_shown_once_plain_and_without_tokens(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    logger = logging.getLogger("graftlab.anything")
    handler = cli.Warnings()
    logger.addHandler(handler)
    try:
        logger.warning("\x1b[31m[red] %s", "hf_abcdefghij")
        logger.warning("%s", Note.of("no_test"), extra=NOTED)
        logger.info("not this")
        try:
            raise ValueError
        except ValueError:
            logger.exception("raised, and shown where it is caught")
    finally:
        logger.removeHandler(handler)
    warning, note = capsys.readouterr().err.splitlines()
    assert (warning, note[:6]) == ("warning: \\x1b[31m[red] <HF_TOKEN>", "note: ")


@pytest.mark.slow
def test_nothing_is_printed_but_what_graftlab_says(folder, run, tmp_path):
    done = process("run", folder / "lora.yaml", "--out", tmp_path / "a")
    assert done.returncode == 0
    lines = done.stderr.decode().splitlines()
    classes, *others = [
        line for line in lines if not line.startswith("step ") and "class_weights" not in line
    ]  # four steps of two layers find one class for all, which is said
    for part in ("24", "bad 8", "good 8", "naïve 8"):
        assert part in classes
    assert others == []
