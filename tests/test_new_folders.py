"""A folder that is written beside and moved into its place: what else is there stays, of two calls too."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import fault
from typer.testing import CliRunner

from graftlab import cli
from graftlab.data.vectors import store
from graftlab.errors import ConfigError, DiskError
from graftlab.rundir.files import new_file, new_folder, write_text
from graftlab.tasks.elm import tree


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_the_user_s_own_beside_it_stays(tmp_path: Path) -> None:
    mine = tmp_path / "out.partial" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    assert mine.read_text() == "mine"
    assert names(tmp_path) == ["out", "out.partial"]
    assert names(tmp_path / "out") == ["a"]


def test_of_two_calls_the_quicker_has_the_place_whole_and_the_other_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def slower() -> None:
        with new_folder(out) as first:
            (first / "first").write_text("1")
            with new_folder(out) as second:
                (second / "second").write_text("2")
            assert names(first) == ["first"]

    with pytest.raises(ConfigError, check=fault("taken", given=str(out))):
        slower()
    assert names(out) == ["second"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_what_a_killed_write_has_left_goes_with_the_next_one(tmp_path: Path, new: Any) -> None:
    out, mine = tmp_path / "out", tmp_path / ".out.mine.partial"
    mine.write_text("mine")
    here, there = os.pipe()
    child = os.fork()
    if not child:
        with new(out) as partial:
            partial.touch()
            os.write(there, b".")
            signal.pause()
        os._exit(1)
    os.read(here, 1)
    with new(out) as partial:  # the other is writing yet
        assert len(names(tmp_path)) == 2 + partial.exists()
        partial.touch()
    assert len(names(tmp_path)) == 3
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if out.is_dir():
        out.rmdir()
    with new(out) as partial:
        partial.touch()
    assert names(tmp_path) == [".out.mine.partial", "out"]


def test_of_two_that_write_one_file_each_writes_its_own_and_the_last_one_stays(
    tmp_path: Path,
) -> None:
    out, mine = tmp_path / "out", tmp_path / "out.partial"
    mine.write_text("mine")
    with new_file(out) as first:
        first.write_text("first, and longer")
        write_text(out, "second")
        assert out.read_text() == "second"
    assert out.read_text() == "first, and longer"
    assert mine.read_text() == "mine"
    assert names(tmp_path) == ["out", "out.partial"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_what_is_not_finished_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "deep" / "out") as folder:
            (folder / "a").write_text("a")
            raise error

    with pytest.raises(DiskError if error is OSError else error):
        fail()
    assert names(tmp_path / "deep") == []

    def fail_in_a_file() -> None:
        with new_file(tmp_path / "deep" / "out") as file:
            file.write_text("a")
            raise error

    with pytest.raises(error):
        fail_in_a_file()
    assert names(tmp_path / "deep") == []


def test_it_may_be_there_empty_and_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name, place in {"there": "there", "link": "elsewhere"}.items():
        with new_folder(tmp_path / name) as folder:
            (folder / "a").write_text("a")
        assert names(tmp_path / place) == ["a"]
    assert (tmp_path / "link").is_symlink()


def test_others_may_enter_as_they_may_any_new_folder(tmp_path: Path) -> None:
    for umask in (0o022, 0o007):
        before = os.umask(umask)
        try:
            plain = tmp_path / f"plain {umask}"
            plain.mkdir()
            with new_folder(tmp_path / f"out {umask}"):
                pass
        finally:
            os.umask(before)
        assert (tmp_path / f"out {umask}").stat().st_mode == plain.stat().st_mode


def made(folder: Path) -> Path:
    """Write vectors with rows about them, and return their folder."""
    (folder / "train").mkdir(parents=True)
    store.write(folder / "train" / tree.VECTORS, np.eye(2, dtype=np.float32))
    row = {"task_type": "summary", "embedding_file_idx": 1, "response": "a"}
    (folder / "train" / tree.ROWS).write_text(json.dumps(row) + "\n")
    return folder


def run_file(folder: Path) -> Path:
    """Write a run file with rows of its own, and return its path."""
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{split} {i}", "label": "ab"[i % 2]} for i in range(6)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "run.yaml"
    path.write_text(
        f"task: {{kind: classification, data_dir: {folder}}}\n"
        "backbone: {kind: tiny}\nmethod: {name: lora}\n"
    )
    return path


def called(command: str, folder: Path, out: str) -> Any:
    source = made(folder) if command == "filter" else run_file(folder)
    options = ["--only", "summary"] if command == "filter" else []
    return CliRunner().invoke(cli.app, [command, str(source), "--out", out, *options, "--json"])


@pytest.mark.parametrize("command", ["filter", "prepare"])
def test_commands_leave_what_is_beside_them(tmp_path: Path, command: str) -> None:
    mine = tmp_path / "out.partial" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert called(command, tmp_path / "source", str(tmp_path / "out")).exit_code == 0
    assert mine.read_text() == "mine"
    assert names(tmp_path) == ["out", "out.partial", "source"]


@pytest.mark.parametrize("command", ["filter", "prepare"])
def test_the_folder_that_one_is_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    result = called(command, tmp_path / "source", ".")
    [problem] = json.loads(result.stdout)["error"]["problems"]
    assert (result.exit_code, problem["kind"], problem["given"]) == (2, "taken", ".")
    assert names(here) == []
