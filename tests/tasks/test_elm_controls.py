"""Rows asked otherwise: by other vectors, by none, by their texts; the answers wanted stay the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graftlab.backbones import tiny
from graftlab.config import Paths
from graftlab.contracts import Backbone, Controls, Data, Problem
from graftlab.data.vectors import store
from graftlab.errors import DataError
from graftlab.tasks import elm
from graftlab.tasks.elm import tree
from graftlab.tasks.generation.fields import Generation

WIDTH, TEXTS = 6, 5
UNKNOWN = -100
KINDS = ("category", "summary")
NAMES = ["vectors", "shuffled", "random", "zero", "prompt", "text"]


def written(folder: Path, texts: int = TEXTS) -> Path:
    """Write splits in which each text is asked for a category once and for a summary twice."""
    for seed, (split, count) in enumerate({"train": 4, "test": texts}.items()):
        (folder / split).mkdir(parents=True)
        drawn = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
        store.write(folder / split / tree.VECTORS, drawn)
        rows = [
            {"task_type": kind, "embedding_file_idx": i, "response": f"{kind} {i} {n}"}
            for i in range(count)
            for kind, times in zip(KINDS, (1, 2), strict=True)
            for n in range(times)
        ]
        lines = {tree.ROWS: rows, tree.TEXTS: [{"text": f"the text {i}"} for i in range(count)]}
        for name, of in lines.items():
            text = "".join(json.dumps(row) + "\n" for row in of)
            (folder / split / name).write_text(text, encoding="utf-8")
    return folder


def config(folder: Path) -> elm.Config:
    return elm.Config(data_dir=folder, num_tokens=2, generation=Generation(max_new_tokens=4))


@pytest.fixture(scope="module")
def owner() -> Backbone:
    return tiny.load(tiny.Config(dropout=0, width=16, max_length=300), Problem("tokens"), 0)


def read(folder: Path) -> Data:
    return elm.read(config(folder), Paths(cache=folder / "cache"), 0)


def controls(folder: Path, owner: Backbone, seed: int = 0) -> Controls:
    return elm.controls(read(folder), "test", owner, config(folder), seed)


def batch(asked: Controls, name: str) -> dict[str, torch.Tensor]:
    task = asked.tasks[name]
    assert not isinstance(task, str)
    return task.batch("test", range(task.size("test")), None)


def test_controls_have_the_rows_in_their_order_with_sources_and_task_types(
    tmp_path: Path, owner: Backbone
) -> None:
    asked = controls(written(tmp_path), owner)
    assert list(asked.tasks) == NAMES
    assert asked.kinds == ["category", "summary", "summary"] * TEXTS
    assert [len({*asked.sources[3 * i : 3 * i + 3]}) for i in range(TEXTS)] == [1] * TEXTS
    assert len({*asked.sources}) == TEXTS


def test_all_controls_want_the_same_answers(tmp_path: Path, owner: Backbone) -> None:
    asked = controls(written(tmp_path), owner)
    wanted = []
    for name in NAMES:
        labels = batch(asked, name)["labels"]
        wanted.append([row[row != UNKNOWN].tolist() for row in labels])
    assert all(other == wanted[0] for other in wanted)
    assert all(wanted[0])


def test_the_first_control_is_the_task_itself(tmp_path: Path, owner: Backbone) -> None:
    folder = written(tmp_path)
    own = elm.bind(read(folder), owner, config(folder), 0)
    found, expected = batch(controls(folder, owner), "vectors"), own.batch("test", range(15), None)
    for name in ("input_ids", "labels", "vectors", "vector_mask"):
        assert torch.equal(found[name], expected[name])


def test_no_text_keeps_its_vector_and_each_has_that_of_one_text_throughout(
    tmp_path: Path, owner: Backbone
) -> None:
    asked = controls(written(tmp_path), owner)
    own, other = (batch(asked, name)["vectors"] for name in ("vectors", "shuffled"))
    assert not (own == other).all(1).any()
    for kind in KINDS:
        places = [place for place, one in enumerate(asked.kinds) if one == kind]
        taken = {asked.sources[place]: tuple(other[place].tolist()) for place in places}
        assert all(taken[asked.sources[p]] == tuple(other[p].tolist()) for p in places)
        assert {*taken.values()} == {tuple(own[place].tolist()) for place in places}


def test_random_vectors_are_as_long_as_the_rows_own_and_zero_ones_are_zero(
    tmp_path: Path, owner: Backbone
) -> None:
    asked = controls(written(tmp_path), owner)
    own, drawn, zero = (batch(asked, name)["vectors"] for name in ("vectors", "random", "zero"))
    assert torch.allclose(drawn.norm(dim=1), own.norm(dim=1))
    assert not torch.isclose(drawn, own).all(1).any()
    assert not zero.any()
    assert zero.shape == own.shape


def test_what_is_drawn_comes_from_the_seed(tmp_path: Path, owner: Backbone) -> None:
    folder = written(tmp_path)
    one, same, other = (controls(folder, owner, seed) for seed in (0, 0, 1))
    for name in ("shuffled", "random"):
        found = [batch(asked, name)["vectors"] for asked in (one, same, other)]
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])


def test_the_prompt_alone_is_the_prompt_without_the_vectors_places(
    tmp_path: Path, owner: Backbone
) -> None:
    asked = controls(written(tmp_path), owner)
    own, alone = batch(asked, "vectors"), batch(asked, "prompt")
    assert "vectors" not in alone
    assert "vector_mask" not in alone
    kept = owner.processor
    for whole, mask, bare in zip(
        own["input_ids"], own["vector_mask"], alone["input_ids"], strict=True
    ):
        said, asked_alone = (
            kept.decode(ids, skip_special_tokens=True) for ids in (whole[~mask.bool()], bare)
        )
        assert said.strip() == asked_alone.strip()


def test_the_text_stands_where_the_vector_was(tmp_path: Path, owner: Backbone) -> None:
    asked = controls(written(tmp_path), owner)
    ids = batch(asked, "text")["input_ids"]
    for place, row in enumerate(ids):
        said = owner.processor.decode(row, skip_special_tokens=True)
        assert f"the text {place // 3}" in said.replace(" ##", "")


@pytest.mark.parametrize(("gone", "control"), [("texts", "text"), ("others", "shuffled")])
def test_what_cannot_be_asked_is_said(
    tmp_path: Path, owner: Backbone, gone: str, control: str
) -> None:
    folder = written(tmp_path, texts=1 if gone == "others" else TEXTS)
    if gone == "texts":
        (folder / "test" / tree.TEXTS).unlink()
    asked = controls(folder, owner)
    assert isinstance(asked.tasks[control], str)
    assert sum(isinstance(task, str) for task in asked.tasks.values()) == 1


def test_texts_that_are_not_those_of_the_vectors_are_refused(
    tmp_path: Path, owner: Backbone
) -> None:
    folder = written(tmp_path)
    with (folder / "test" / tree.TEXTS).open("a", encoding="utf-8") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(DataError):
        controls(folder, owner)


def test_predictions_and_inputs_say_what_kind_and_which_vector(
    tmp_path: Path, owner: Backbone
) -> None:
    folder = written(tmp_path)
    task: Any = elm.bind(read(folder), owner, config(folder), 0)
    inputs = task.inputs("test", 4)
    expected = store.Vectors(folder / "test" / tree.VECTORS).take([1])[0]
    assert inputs["vector"].tolist() == expected.tolist()
    assert inputs["made_with"] is None
    assert inputs["task_type"] == "summary"
