"""Chosen task types of a folder: each row still stands for its vector, and no other vector is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import fault
from typer.testing import CliRunner

from graftlab import cli
from graftlab.data.vectors import layout, store
from graftlab.data.vectors.origin import Origin
from graftlab.errors import ConfigError, DataError
from graftlab.synthesis import choice
from graftlab.tasks.elm import tree

ORIGIN = Origin("me/mine", None, {"a": "1"}, "", "mean", True, None, 64, "float32")
TYPES = ("summary", "keywords", "style_casual")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def made(folder: Path, rows: list[dict[str, Any]], split: str = "train", count: int = 10) -> Any:
    """Write a split whose vector i is (i, i + 1/2), with a text for each."""
    there = folder / split
    there.mkdir(parents=True)
    vectors = np.stack([np.arange(count), np.arange(count) + 0.5], axis=1).astype(np.float32)
    store.write(there / tree.VECTORS, vectors, ORIGIN)
    (there / "texts.jsonl").write_text("".join(f'{{"text": "t{i}"}}\n' for i in range(count)))
    (there / tree.ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(kind: str, place: Any, name: str = "embedding_file_idx") -> dict[str, Any]:
    return {"task_type": kind, name: place, "response": f"{kind} of {place}", "mine": 7}


def test_each_row_keeps_its_vector_and_text_and_no_other_is_copied(tmp_path: Path) -> None:
    rows = [row(TYPES[i % 3], (3 * i) % 10) for i in range(20)] + [
        row("summary", 3),
        row("summary", 3),
    ]
    made(tmp_path / "all", rows)
    part = choice.take(tmp_path / "all", ["summary"], tmp_path / "some")["train"]
    there = tmp_path / "some/train"
    kept, texts = rows_of(there / tree.ROWS), rows_of(there / "texts.jsonl")
    found = store.Vectors(there / tree.VECTORS)
    wanted = [r for r in rows if r["task_type"] == "summary"]
    assert [r["response"] for r in kept] == [r["response"] for r in wanted]
    for before, after in zip(wanted, kept, strict=True):
        old, new = before["embedding_file_idx"], after["embedding_file_idx"]
        np.testing.assert_array_equal(found.take([new]), [[old, old + 0.5]])
        assert texts[new]["text"] == f"t{old}"
        assert {**after, "embedding_file_idx": old} == before
    used = {r["embedding_file_idx"] for r in wanted}
    assert len(found) == part.vectors == len(used)
    assert (part.rows, part.of_rows, part.of_vectors) == (len(wanted), 22, 10)
    assert found.origin == ORIGIN


def test_the_source_s_tree_and_alias_are_read(tmp_path: Path) -> None:
    for folder in ("embeddings", "synthesis"):
        (tmp_path / "all" / folder).mkdir(parents=True)
    vectors = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    store.write(tmp_path / "all/embeddings/train_embeddings.safetensors", vectors)
    text = json.dumps(row("summary", 2, "embedding_index")) + "\n"
    (tmp_path / "all/synthesis/train_synthesis.jsonl").write_text(text)
    choice.take(tmp_path / "all", ["descriptive"], tmp_path / "some")
    [kept] = rows_of(tmp_path / "some/train" / tree.ROWS)
    assert kept["embedding_index"] == 0
    found = store.Vectors(tmp_path / "some/train" / tree.VECTORS).take([0])
    np.testing.assert_array_equal(found, [[5, 6]])


def test_numbers_are_copied_as_they_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    halves = np.arange(12, dtype="<u2").reshape(6, 2) + 0x3F80
    path.write_bytes(layout.header(6, 2, ORIGIN, "BF16") + halves.tobytes())
    store.copy(store.Vectors(path), [1, 4], tmp_path / "c.safetensors")
    expected = layout.header(2, 2, ORIGIN, "BF16") + halves[[1, 4]].tobytes()
    assert (tmp_path / "c.safetensors").read_bytes() == expected


@pytest.mark.parametrize(
    ("only", "kind"), [("compare", "removed"), ("hypothetical", "removed"), ("sumary", "unknown")]
)
def test_what_is_no_task_type_is_refused_by_name(only: str, kind: str) -> None:
    with pytest.raises(ConfigError, check=fault(kind, given=only)):
        choice.chosen([only])


def test_groups_are_those_of_the_catalogue() -> None:
    groups = [choice.chosen([group]) for group in ("factual", "descriptive", "creative")]
    assert list(map(len, groups)) == [3, 5, 5]
    assert len({name for group in groups for name in group}) == 13


def test_a_row_without_a_vector_stops_it_and_nothing_is_left(tmp_path: Path) -> None:
    made(tmp_path / "all", [row("summary", 0), row("summary", 10)])
    with pytest.raises(DataError) as caught:
        choice.take(tmp_path / "all", ["summary"], tmp_path / "some")
    assert caught.value.problems[0].place.row == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all"]


def test_a_train_split_of_which_nothing_is_chosen_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "all", [row("summary", 0)])
    with pytest.raises(DataError, check=fault("empty")):
        choice.take(tmp_path / "all", ["keywords"], tmp_path / "some")


def test_the_command_says_what_is_kept(tmp_path: Path) -> None:
    made(tmp_path / "all", [row("summary", 0), row("keywords", 1)])
    made(tmp_path / "all", [row("keywords", 1)], "test")
    call = ["filter", str(tmp_path / "all"), "--only", "summary", "--out", str(tmp_path / "some")]
    result = CliRunner().invoke(cli.app, [*call, "--json"])
    splits = json.loads(result.stdout)["splits"]
    assert {split: part["rows"] for split, part in splits.items()} == {"train": 1, "test": 0}
    assert not (tmp_path / "some/test").exists()
