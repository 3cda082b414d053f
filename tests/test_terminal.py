"""What reaches a terminal: nothing that steers it, no secret; and streams that cannot be written."""

import ast
import errno
import io
import json
import resource
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

import graftlab
from graftlab import cli, terminal
from graftlab.rundir import limits

PACKAGE = Path(graftlab.__file__).parent
TITLE = "\x1b]0;owned\x07"
FULL = Path("/dev/full")
TURNED = "abc\u202efed"


def test_every_character_of_unicode_that_steers_is_escaped_and_words_of_all_scripts_stay():
    every = [chr(n) for n in range(0x110000)]
    shown = {c for c in every if terminal.visible(c) == c}
    controls = {c for c in every if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    turning = {c for c in every if unicodedata.bidirectional(c) in
               ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")}  # fmt: skip
    assert shown & (controls | turning) == {"\n", "\t"}
    assert not shown & {"\u200e", "\u200f", "\u061c", "\u200b", "\ufeff"}
    for words in (
        "naïve",
        "日本語\u3000です",
        "\u0645\u06cc\u200c\u062e\u0648",
        "👩\u200d💻",
        "שלום",
        "10\xa0%",
    ):
        assert terminal.visible(words) == words


def test_json_stays_equal_and_plain(capsys):
    value = {"a": TITLE + TURNED + "\x9b31m\u2028\ud800\U000e0041", "b": "日本"}
    terminal.say_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert terminal.visible(out) == out


def test_json_has_null_for_what_is_not_finite(capsys):
    terminal.say_json({"a": [float("nan"), 1.5], "b": float("inf")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": None}


def test_a_table_shows_names_and_obeys_none_of_them(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    table = Table(title=f"[red]{TITLE}")
    table.add_column(TURNED)
    table.add_row(f"[bold]x[/] :smile: {TITLE}")
    terminal.console(width=80).print(table)
    assert "\\x1b]0;owned" in stream.getvalue()
    assert "[bold]x[/] :smile:" in stream.getvalue()
    assert not {"\x1b", "\x07", "\u202e"} & set(stream.getvalue())


def test_secrets_of_the_environment_are_named_and_not_repeated(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "a-word-that-is-secret")
    monkeypatch.setenv("KEYBOARD", "not-a-secret-at-all")
    said = terminal.redact("/data/a-word-that-is-secret/x and not-a-secret-at-all")
    assert said == "/data/<DB_PASSWORD>/x and not-a-secret-at-all"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_secret_in_a_path_of_a_run_file_is_not_printed(tmp_path, monkeypatch, as_json):
    monkeypatch.setenv("STORE_TOKEN", "s3cr3t-s3cr3t")
    file = tmp_path / "run.yaml"
    file.write_text(
        "backbone: {kind: tiny}\nmethod: {name: lora}\n"
        "task: {kind: classification, files: {train: $STORE_TOKEN/train.csv}}\n"
    )
    ended = CliRunner().invoke(cli.app, ["check", str(file), *["--json"] * as_json])
    assert ended.exit_code
    assert "s3cr3t" not in ended.output
    assert "STORE_TOKEN" in ended.output


def test_rows_of_data_do_not_steer_the_terminal(tmp_path):
    for split in ("train", "validation", "test"):
        rows = [
            {"text": f"{TITLE}{TURNED} {split} {i}", "label": "ab"[i % 2] + TITLE} for i in range(8)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {s: str(tmp_path / f"{s}.jsonl") for s in ("train", "validation", "test")}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({
        "backbone": {"kind": "tiny"}, "method": {"name": "lora"},
        "task": {"kind": "classification", "files": splits},
    }))  # fmt: skip
    for command in (["prepare", str(file)], ["show", "batch", str(file)], ["check", str(file)]):
        for more in ([], ["--json"]):
            shown = CliRunner().invoke(cli.app, [*command, *more]).output
            assert terminal.visible(shown) == shown, command


def test_all_output_goes_through_one_place():
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.name == "terminal.py" or "inside" in path.parts:  # of programs in their sandbox
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if called and node.func.id in ("print", "Console"):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert [place for place in found if not place.startswith("training/progress.py")] == []


def begin(*arguments, limits=(), **streams):
    """Start the command line in a process of its own, and return it."""

    def limit():
        for what, most in limits:
            resource.setrlimit(what, (most, most))

    command = [sys.executable, "-m", "graftlab", *arguments]
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command, preexec_fn=limit, text=True, **streams)


def test_an_output_that_nobody_reads_is_no_failure():
    process = begin("list", stdout=subprocess.PIPE)
    process.stdout.close()
    errors = process.communicate()[1]
    assert (process.returncode, errors) == (0, "")


def test_an_output_that_is_closed_is_no_failure():
    shell = f"{sys.executable} -m graftlab list metrics >&-"
    done = subprocess.run(["sh", "-c", shell], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full_is_an_error_of_the_disk():
    with FULL.open("w") as full:
        process = begin("list", "metrics", stdout=full)
        errors = process.communicate()[1]
    assert process.returncode == 8
    assert "Traceback" not in errors
    assert "standard output" in errors


FILE = "backbone: {kind: tiny}\nmethod: {name: lora}\ntask: {name: digits}\n"


@pytest.mark.slow  # a fresh process imports torch, as far as it comes
def test_too_little_memory_is_told_from_a_bug(tmp_path):
    (tmp_path / "run.yaml").write_text(FILE)
    little = [(resource.RLIMIT_AS, 400 * 2**20)]
    process = begin("plan", str(tmp_path / "run.yaml"), limits=little, stdout=subprocess.DEVNULL)
    errors = process.communicate()[1]
    assert process.returncode == 5, errors
    assert "Traceback" not in errors


def test_too_few_open_files_are_told_from_a_mistake(tmp_path):
    (tmp_path / "run.yaml").write_text(FILE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "run.yaml").open() as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), hard))
        try:
            ended = CliRunner().invoke(cli.app, ["check", str(tmp_path / "run.yaml"), "--json"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ended.exit_code == 8, ended.output
    assert json.loads(ended.stdout)["error"]["problems"][0]["kind"] == "open_files"


@pytest.mark.parametrize(("error", "kind", "code"), [
    (MemoryError(), "memory", 5),
    (RuntimeError("can't start new thread"), "threads", 5),
    (ImportError("libtorch.so: failed to map segment from shared object"), "memory", 5),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "threads", 5),
])  # fmt: skip
def test_a_limit_is_known_by_the_error_behind_an_error(error, kind, code):
    try:
        try:
            raise error
        except Exception:
            raise ValueError("it cannot be read") from None
    except ValueError as above:
        found = limits.exceeded(above)
    assert (found.problems[0].kind, found.exit_code) == (kind, code)
    assert found.problems[0].remedies
    assert limits.exceeded(ValueError("a row says: out of memory")) is None
