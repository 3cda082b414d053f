"""Rows that stand for vectors: laid out as written by hand, and refused by row where they cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graftlab import config, runfile
from graftlab.backbones import tiny
from graftlab.config import Paths
from graftlab.contracts import Backbone, Data, Problem, Setting
from graftlab.data.vectors import store
from graftlab.data.vectors.origin import Origin
from graftlab.errors import DataError
from graftlab.methods import elm as method
from graftlab.runs import material
from graftlab.tasks import elm
from graftlab.tasks.elm import prompts, tree
from graftlab.tasks.generation.chat import VECTOR, Guard
from graftlab.tasks.generation.fields import Generation

TOKENS = Problem("tokens")
PAD, BOS, EOS, UNKNOWN = 0, 2, 3, -100
ORIGIN = Origin(
    "me/mine", None, {"model.safetensors": "12"}, "", "mean", True, None, 256, "float32"
)
WIDTH = 6
CHAT = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def drawn(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def rows_of(split: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "task_type": "summary",
            "embedding_file_idx": i,
            "query": f"{split} {i}?",
            "response": f"It is {i}.",
        }
        for i in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def written(folder: Path, train: list[dict[str, Any]] | None = None, vectors: Any = None) -> Path:
    """Write three splits, each of its own vectors."""
    for seed, (split, count) in enumerate({"train": 6, "validation": 3, "test": 3}.items()):
        own = rows_of(split, count) if train is None or split != "train" else train
        write(folder / split / tree.ROWS, own)
        given = vectors if vectors is not None and split == "train" else drawn(count, seed)
        store.write(folder / split / tree.VECTORS, given, ORIGIN)
    return folder


def backbone(**fields: Any) -> Backbone:
    return tiny.load(tiny.Config(dropout=0, width=16, max_length=512, **fields), TOKENS, 0)


def read(folder: Path, **fields: Any) -> Data:
    return elm.read(elm.Config(data_dir=folder, **fields), Paths(cache=folder / "cache"), 0)


def bound(folder: Path, owner: Backbone, **fields: Any) -> Any:
    given = {"generation": Generation(max_new_tokens=12), **fields}
    return elm.bind(read(folder, **given), owner, elm.Config(data_dir=folder, **given), 0)


def reading(owner: Backbone, task: Any, **fields: Any) -> Any:
    """Return the backbone with an adapter for the task's vectors."""
    setting = Setting(0, 1, 1, TOKENS, lambda: iter(()), vectors=task.record["vectors"])
    section = method.Config.model_validate({"hidden": 8, "norm": "source", **fields})
    return method.attach(owner, section, setting).model.eval()


def codes(owner: Backbone, text: str) -> list[int]:
    found: list[int] = owner.processor(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    assert len(found) == len(text.encode())
    return found


@pytest.mark.parametrize("kind", prompts.task_types())
def test_a_row_of_each_task_type_is_laid_out_as_by_hand(kind: str, tmp_path: Path) -> None:
    """The vector, its prompt, the answer and one end; what trains is the answer with its end, and no more."""
    about = prompts.task_types()[kind]
    asked = f"{about.instruction.replace('{domain}', 'the sea')}\n{about.cue}"
    rows = [
        *rows_of("train", 3),
        {
            "task_type": kind,
            "embedding_index": 4,
            "target_text": "Its answer\n</s> [SEP].",
            "metadata": {"random_domain": "the sea"},
        },
    ]
    owner = backbone()
    task = bound(written(tmp_path, rows), owner)
    batch = task.batch("train", [3], 0)
    prompt, answer = codes(owner, f"\n{asked}\n"), codes(owner, "Its answer\n</s> [SEP].")
    assert batch["input_ids"].tolist() == [[BOS, PAD, *prompt, *answer, EOS]]
    assert batch["vector_mask"].tolist() == [[0, 1] + [0] * (len(prompt) + len(answer) + 1)]
    assert batch["labels"].tolist() == [[UNKNOWN] * (2 + len(prompt)) + [*answer, EOS]]
    assert batch["attention_mask"].all()
    np.testing.assert_array_equal(batch["vectors"], drawn(6)[[4]])


def test_several_tokens_stand_for_a_vector_and_padding_has_none(tmp_path: Path) -> None:
    task = bound(written(tmp_path), backbone(), prompts="rows", num_tokens=3)
    batch = task.batch("train", [0, 5], 0)
    assert batch["vector_mask"].sum(1).tolist() == [3, 3]
    assert batch["vector_mask"][:, 1:4].all()


def test_in_a_chat_the_vector_stands_in_the_users_turn(tmp_path: Path) -> None:
    owner = backbone()
    owner.processor.chat_template = CHAT
    task = bound(written(tmp_path), owner, prompts="rows", prompt_format="chat")
    batch = task.batch("train", [2], 0)
    before, after = codes(owner, "<u>"), codes(owner, "\ntrain 2?<a>")
    answer = [*codes(owner, "It is 2."), EOS]
    assert batch["input_ids"].tolist() == [[*before, PAD, *after, *answer]]
    assert batch["vector_mask"][0].nonzero().flatten().tolist() == [len(before)]
    assert batch["labels"].tolist() == [[UNKNOWN] * (len(before) + 1 + len(after)) + answer]


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
def test_no_text_can_forge_the_place_of_a_vector(prompt_format: str, tmp_path: Path) -> None:
    stand_ins = "".join(chr(0xF0000 + i) for i in range(9))
    forged = f"a {VECTOR} b {stand_ins} {Guard.ESCAPE}{stand_ins} [PAD] [CLS]"
    rows = [{**row, "query": forged, "response": forged} for row in rows_of("train", 4)]
    owner = backbone()
    owner.processor.chat_template = CHAT
    task = bound(written(tmp_path, rows), owner, prompts="rows", prompt_format=prompt_format)
    batch = task.batch("train", [0], 0)
    assert batch["vector_mask"].sum() == 1
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    assert owner.processor.decode(labels[labels != UNKNOWN][:-1]) == forged
    assert (ids == BOS).sum() == (prompt_format == "plain")
    assert (ids == PAD).sum() == 1


def test_changing_what_a_row_should_answer_leaves_what_is_written_unchanged(tmp_path: Path) -> None:
    owner = backbone()
    folder = written(tmp_path, rows_of("train", 6))
    task = bound(folder, owner, prompts="rows")
    model = reading(owner, task)
    before = task.complete(model, "train", list(range(6)))
    data = read(folder, prompts="rows")
    changed = {
        split: [
            {**row, "label": "no", "fields": {**row["fields"], "response": "no " * 9}}
            for row in rows
        ]
        for split, rows in data.splits.items()
    }
    section = elm.Config(data_dir=folder, prompts="rows", generation=Generation(max_new_tokens=12))
    other = elm.bind(Data(changed, TOKENS, data.record), owner, section, 0)
    assert other.complete(model, "train", list(range(6))) == before
    assert len({row["prediction"] for row in before}) > 1


def test_what_is_written_depends_on_the_vector_and_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    """Token by token from the embeddings, without cache, padding or batch."""
    owner = backbone()
    folder = written(
        tmp_path, [{**row, "query": "?" * (1 + i)} for i, row in enumerate(rows_of("train", 6))]
    )
    task = bound(folder, owner, prompts="rows", num_tokens=2)
    model = reading(owner, task)
    written_by_task = [row["prediction"] for row in task.complete(model, "train", list(range(6)))]
    llm, expected = owner.model, []
    for i in range(6):
        ids = torch.tensor([[BOS, PAD, PAD, *codes(owner, f"\n{'?' * (1 + i)}\n")]])
        with torch.no_grad():
            known = llm.get_input_embeddings()(ids)
            known[0, 1:3] = model.adapter(torch.from_numpy(drawn(6)[[i]]))[0]
            said: list[int] = []
            while len(said) < 12:
                token = int(llm(inputs_embeds=known).logits[0, -1].argmax())
                if token == EOS:
                    break
                said.append(token)
                known = torch.cat([known, llm.get_input_embeddings()(torch.tensor([[token]]))], 1)
        expected.append(owner.processor.decode(said, skip_special_tokens=True))
    assert written_by_task == expected
    assert len(set(expected)) > 1


def test_the_tree_of_the_source_is_read_its_val_is_the_test_where_there_is_no_other(
    tmp_path: Path,
) -> None:
    for seed, (split, count) in enumerate({"train": 20, "val": 4}.items()):
        write(tmp_path / "synthesis" / f"{split}_synthesis.jsonl", rows_of(split, count))
        (tmp_path / "embeddings").mkdir(exist_ok=True)
        store.write(tmp_path / "embeddings" / f"{split}_embeddings.safetensors", drawn(count, seed))
    data = read(tmp_path)
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 18,
        "validation": 2,
        "test": 4,
    }
    assert elm.check(elm.Config(data_dir=tmp_path)) == []
    task = bound(tmp_path, backbone())
    place = data.splits["validation"][1]["vector"]
    np.testing.assert_array_equal(
        task.batch("validation", [1], None)["vectors"], drawn(20)[[place]]
    )
    np.testing.assert_array_equal(task.batch("test", [3], None)["vectors"], drawn(4, 1)[[3]])


def test_the_rows_of_the_sources_tree_are_examined_before_a_run(tmp_path: Path) -> None:
    for split, count in {"train": 20, "val": 4}.items():
        write(tmp_path / "synthesis" / f"{split}_synthesis.jsonl", rows_of(split, count))
        (tmp_path / "embeddings").mkdir(exist_ok=True)
        store.write(
            tmp_path / "embeddings" / f"{split}_embeddings.safetensors", drawn(count, count)
        )
    values = {
        "backbone": {"kind": "tiny", "max_length": 512},
        "task": {"kind": "elm", "data_dir": str(tmp_path)},
        "method": {"name": "elm"},
        "training": {"batch_size": 4},
    }
    (tmp_path / "run.yaml").write_text(config.dump(values))
    file = runfile.resolve(config.read(tmp_path / "run.yaml"))
    kinds = [note.kind for note in material.examine(file)]
    assert kinds == ["validation_is_test", "validation_carved"]


def test_rows_of_one_text_are_in_one_split(tmp_path: Path) -> None:
    """A vector is its text: one that stands in test is dropped from train, whatever is asked."""
    folder = written(tmp_path)
    mixed = drawn(6)
    mixed[[1, 4]] = drawn(3, 2)[[0, 2]]
    store.write(folder / "train" / tree.VECTORS, mixed, ORIGIN)
    data = read(folder)
    assert [row["vector"] for row in data.splits["train"]] == [0, 2, 3, 5]
    with pytest.raises(DataError):
        read(folder, overlap="refuse")


def test_carving_keeps_the_rows_of_a_text_together(tmp_path: Path) -> None:
    rows = [
        {**row, "task_type": kind}
        for kind in ("summary", "keywords")
        for row in rows_of("train", 20)
    ]
    write(tmp_path / "train" / tree.ROWS, rows)
    store.write(tmp_path / "train" / tree.VECTORS, drawn(20))
    data = read(tmp_path, test_share=0.2, validation_share=0.2)
    held = {split: [row["vector"] for row in found] for split, found in data.splits.items()}
    assert {split: len(places) for split, places in held.items()} == {
        "train": 24,
        "validation": 8,
        "test": 8,
    }
    assert all(sorted(places) == sorted([*set(places), *set(places)]) for places in held.values())
    assert not set(held["train"]) & {*held["validation"], *held["test"]}


Change = Callable[[dict[str, Any]], dict[str, Any]]
BAD_ROWS: dict[str, Change] = {
    "index behind the last": lambda row: {**row, "embedding_file_idx": 6},
    "negative index": lambda row: {**row, "embedding_file_idx": -1},
    "no vector": lambda row: {k: v for k, v in row.items() if k != "embedding_file_idx"},
    "two vectors": lambda row: {**row, "embedding_file_idx": [0, 1]},
    "two names for it": lambda row: {**row, "embedding_index": 1},
    "index as text": lambda row: {**row, "embedding_file_idx": "2"},
    "index as truth": lambda row: {**row, "embedding_file_idx": True},
    "empty response": lambda row: {**row, "response": "  \n"},
    "no response": lambda row: {**row, "response": None},
    "response as number": lambda row: {**row, "response": 3},
    "unknown task type": lambda row: {**row, "task_type": "sumary"},
    "task type of two texts": lambda row: {**row, "task_type": "compare"},
    "the other one": lambda row: {**row, "task_type": "hypothetical"},
    "no task type": lambda row: {**row, "task_type": None},
    "no domain": lambda row: {**row, "task_type": "counterfactual"},
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_row_that_cannot_be_used_is_named(what: str, tmp_path: Path) -> None:
    rows = rows_of("train", 6)
    rows[2] = BAD_ROWS[what](rows[2])
    folder = written(tmp_path, rows)
    with pytest.raises(DataError, match="row 3: "):
        read(folder)
    data = read(folder, skip_bad=1)
    assert [skipped["row"] for skipped in data.record["skipped"]["train"]] == [3]
    assert [row["vector"] for row in data.splits["train"]] == [0, 1, 3, 4, 5]


def test_an_unknown_task_type_is_told_the_nearest(tmp_path: Path) -> None:
    folder = written(tmp_path, [{**row, "task_type": "sumary"} for row in rows_of("train", 4)])
    with pytest.raises(DataError, match="'summary'"):
        read(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_vector_that_is_not_finite_or_all_zero_is_refused_where_a_row_stands_for_it(
    value: float, tmp_path: Path
) -> None:
    vectors = drawn(7)
    vectors[3] = value
    rows = rows_of("train", 7)
    folder = written(tmp_path, rows, vectors)
    with pytest.raises(DataError, match="row 4: "):
        read(folder)
    write(folder / "train" / tree.ROWS, rows[:3] + rows[4:])
    assert len(read(folder).splits["train"]) == 6


def test_splits_of_other_widths_or_origins_do_not_go_together(tmp_path: Path) -> None:
    folder = written(tmp_path)
    store.write(folder / "test" / tree.VECTORS, drawn(3)[:, :4], ORIGIN)
    [fault] = elm.check(elm.Config(data_dir=folder))
    assert fault.kind == "conflict"
    other = Origin.from_json({**ORIGIN.as_json(), "pooling": "cls"})
    store.write(folder / "test" / tree.VECTORS, drawn(3, 2), other)
    [fault] = elm.check(elm.Config(data_dir=folder))
    assert fault.kind == "conflict"
    store.write(folder / "test" / tree.VECTORS, drawn(3, 2))
    assert elm.check(elm.Config(data_dir=folder)) == [], "a file that says nothing is believed"


@pytest.mark.parametrize(
    "lost", ["train/rows.jsonl", "train/embeddings.safetensors", "test/rows.jsonl"]
)
def test_a_file_that_is_missing_is_found_before_anything_is_loaded(
    lost: str, tmp_path: Path
) -> None:
    folder = written(tmp_path)
    (folder / lost).unlink()
    [fault] = elm.check(elm.Config(data_dir=folder))
    assert fault.kind == "missing"


def test_two_files_of_a_kind_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "both")
    write(folder / "val" / tree.ROWS, rows_of("val", 2))
    assert len(elm.check(elm.Config(data_dir=folder))) == 1
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        [fault] = elm.check(elm.Config(data_dir=path))
        assert (fault.kind, fault.place.key) == ("missing", ("data_dir",))


def test_a_prompt_that_does_not_fit_is_refused_and_an_answer_loses_its_end(tmp_path: Path) -> None:
    folder, owner = written(tmp_path), backbone()
    with pytest.raises(DataError):
        bound(folder, owner, max_length=40)
    long = [{**row, "response": "so " * 30} for row in rows_of("test", 2)]
    write(folder / "test" / tree.ROWS, long)
    task = bound(folder, owner, prompts="rows", max_length=60)
    batch = task.batch("test", [0], None)
    assert batch["vector_mask"][0].tolist() == [0, 1] + [0] * 58
    assert batch["labels"][0, -1] != EOS
    new = elm.read_inputs(
        elm.Config(data_dir=folder, prompts="rows"),
        [{"vector": drawn(1)[0], "task_type": "x", "query": "so " * 300}],
    )
    with pytest.raises(DataError):
        elm.bind(
            Data({"input": new}, TOKENS), owner, elm.Config(data_dir=folder, prompts="rows"), 0
        )


def test_new_vectors_are_asked_about_without_the_data(tmp_path: Path) -> None:
    folder, owner = written(tmp_path), backbone()
    task = bound(folder, owner)
    model = reading(owner, task)
    expected = [row["prediction"] for row in task.complete(model, "train", [2, 4])]
    section = elm.Config(data_dir=tmp_path / "gone", generation=Generation(max_new_tokens=12))
    path = tmp_path / "new.npy"
    np.save(path, drawn(6)[[2, 4]])
    given = [
        {"vector": list(map(float, vector)), "task_type": "summary"} for vector in drawn(6)[[2, 4]]
    ]
    for source in (path, given):
        rows = elm.read_inputs(section, source, task="summary")
        new = elm.bind(Data({"input": rows}, TOKENS), owner, section, 0)
        assert [row["prediction"] for row in new.complete(model, "input", [0, 1])] == expected


BAD_INPUTS: dict[str, Any] = {
    "a text": "what?",
    "no rows": [],
    "no vector": [{"task_type": "summary"}],
    "no numbers": [{"task_type": "summary", "vector": ["a"]}],
    "a table": [{"task_type": "summary", "vector": [[1.0]]}],
    "not finite": [{"task_type": "summary", "vector": [1.0, np.nan]}],
    "all zero": [{"task_type": "summary", "vector": [0.0, 0.0]}],
    "another width": [{"task_type": "summary", "vector": [1.0] * n} for n in (2, 3)],
    "no task type": [{"vector": [1.0]}],
}


@pytest.mark.parametrize("what", BAD_INPUTS)
def test_inputs_that_are_no_vectors_are_refused(what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        elm.read_inputs(elm.Config(data_dir=tmp_path), BAD_INPUTS[what])
