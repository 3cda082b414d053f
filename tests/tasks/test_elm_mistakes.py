"""Mistakes in a folder of vectors and rows: each is told by `graftlab check`, once, with its file and row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from vector_runs import write_split

from graftlab import cli, config
from graftlab.data.vectors import store
from graftlab.data.vectors.origin import Origin
from graftlab.tasks.elm import tree

WIDTH = 6
ORIGIN = Origin("me/it", None, {"model.safetensors": "12"}, "", "mean", True, None, 256, "float32")


def drawn(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "task_type": "category",
            "embedding_file_idx": i,
            "query": f"{i}?",
            "response": f"it is {i}",
        }
        for i in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run file that is right, and its vectors and rows."""
    for seed, (split, count) in enumerate({"train": 8, "validation": 3, "test": 3}.items()):
        write_split(tmp_path / "vectors" / split, drawn(count, seed), rows(count))
    values = {
        "backbone": {"kind": "tiny", "max_length": 512},
        "task": {"kind": "elm", "data_dir": "vectors"},
        "method": {"name": "elm", "hidden": 8},
        "training": {"batch_size": 4},
    }
    (tmp_path / "run.yaml").write_text(config.dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row_changed(**fields: Any) -> Callable[[Path], None]:
    """Change fields of the third train row; None takes one away."""

    def change(folder: Path) -> None:
        found = rows(8)
        found[2] = {k: v for k, v in {**found[2], **fields}.items() if v is not None}
        text = "".join(json.dumps(row) + "\n" for row in found)
        (folder / "train" / tree.ROWS).write_text(text)

    return change


def vectors_changed(
    split: str, change: Callable[[Any], Any], **origin: Any
) -> Callable[[Path], None]:
    """Write a split's vectors changed, and the train's with an origin where that is another."""

    def write(folder: Path) -> None:
        path = folder / split / tree.VECTORS
        found = store.Vectors(path).take(slice(None))
        made = Origin.from_json({**ORIGIN.as_json(), **origin}) if origin else None
        store.write(path, change(found), made)
        if origin:
            first = folder / "train" / tree.VECTORS
            store.write(first, store.Vectors(first).take(slice(None)), ORIGIN)

    return write


def with_value(value: float) -> Callable[[Any], Any]:
    def change(found: Any) -> Any:
        found[2] = value
        return found

    return change


def cut_short(folder: Path) -> None:
    path = folder / "test" / tree.VECTORS
    path.write_bytes(path.read_bytes()[:-5])


ROW = ("vectors/train/rows.jsonl", 3)
MISTAKES: dict[str, tuple[Callable[[Path], None], tuple[str | None, int | None], str]] = {
    "index behind the last": (row_changed(embedding_file_idx=8), ROW, "8"),
    "no vector": (row_changed(embedding_file_idx=None), ROW, "embedding_file_idx"),
    "two vectors": (row_changed(embedding_file_idx=[0, 1]), ROW, "2"),
    "empty response": (row_changed(response=" "), ROW, "response"),
    "unknown task type": (row_changed(task_type="sumary"), ROW, "summary"),
    "a task type of two texts": (row_changed(task_type="compare"), ROW, "compare"),
    "no domain": (row_changed(task_type="counterfactual"), ROW, "domain"),
    "not finite": (vectors_changed("train", with_value(np.nan)), ROW, "2"),
    "all zero": (vectors_changed("train", with_value(0)), ROW, "2"),
    "another width": (vectors_changed("test", lambda v: v[:, 1:]), (None, None), "5"),
    "another model": (
        vectors_changed("test", lambda v: v, sha256={"model.safetensors": "34"}), (None, None), "sha256"
    ),
    "cut short": (cut_short, (None, None), "test/embeddings.safetensors"),
    "a file is gone": (
        lambda f: (f / "test" / tree.VECTORS).unlink(), (None, None), "embeddings.safetensors"
    ),
}  # fmt: skip


def checked(folder: Path) -> Any:
    return CliRunner().invoke(cli.app, ["check", str(folder / "run.yaml"), "--json"])


def test_a_folder_that_is_right_passes(folder: Path) -> None:
    assert checked(folder).exit_code == 0


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_told_once_with_its_place(what: str, folder: Path) -> None:
    change, (file, row), says = MISTAKES[what]
    change(folder / "vectors")
    result = checked(folder)
    assert result.exit_code == 3, result.output
    error = json.loads(result.stdout)["error"]
    [problem] = error["problems"]
    assert says in error["message"]
    if file is not None:
        assert file in error["message"]
        assert f"row {row}: " in problem["message"]
