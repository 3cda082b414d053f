"""Vectors of texts: those of sentence-transformers, each in its row; the same bytes whatever is killed."""

import dataclasses
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import fault
from safetensors.numpy import load_file, save_file

from graftlab.data.vectors.store import Vectors
from graftlab.embeddings import blocks, texts
from graftlab.encoders import embedder
from graftlab.errors import ConfigError, DataError, DiskError, ModelError
from graftlab.testing import examples

DRAWN = random.Random(0)
WORDS = [" ".join("abcdefgh"[DRAWN.randrange(8)] for _ in range(1 + i % 30)) for i in range(90)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> str:
    return examples.text_model(tmp_path_factory.mktemp("model"), "encoder")


@pytest.fixture(scope="module")
def model(folder: str) -> embedder.Embedder:
    return embedder.load(embedder.Request(folder, pooling="mean", max_seq_length=16))


def peer(folder: str, **more: Any) -> Any:
    """Return the same model, put together by hand."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tokens = Transformer(folder, max_seq_length=16)
    made = SentenceTransformer(
        modules=[tokens, Pooling(tokens.get_embedding_dimension(), "mean")], device="cpu"
    )
    return made.encode(WORDS, **more)


def test_each_text_has_the_vector_of_sentence_transformers_in_its_row(
    tmp_path: Path, folder: str, model: embedder.Embedder
) -> None:
    blocks.write(texts.Texts("here", WORDS), model, tmp_path, batch_size=4, quiet=True)
    found = Vectors(tmp_path / blocks.VECTORS)
    # batches are others, and sums of float32 with them
    np.testing.assert_allclose(found.take(slice(None)), peer(folder), atol=1e-5)
    assert found.origin == model.origin


def test_the_record_says_how_the_model_was_asked(folder: str) -> None:
    asked = embedder.Request(
        folder,
        prompt="query: ",
        pooling="cls",
        normalize=True,
        truncate_dim=3,
        precision="bfloat16",
    )
    origin = embedder.load(asked).origin
    said = (origin.prompt, origin.pooling, origin.normalized, origin.truncate_dim, origin.precision)
    assert said == ("query: ", "cls", True, 3, "bfloat16")
    assert origin.sha256.keys() == {"model.safetensors"}


def test_a_prompt_and_a_length_of_one_are_what_the_peer_does(tmp_path: Path, folder: str) -> None:
    asked = embedder.Request(
        folder, prompt="a b ", pooling="mean", normalize=True, truncate_dim=3, max_seq_length=16
    )
    found = embedder.load(asked).encode(WORDS, 32)
    expected = peer(folder, prompt="a b ", normalize_embeddings=True, truncate_dim=3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_killed_ten_times_it_writes_the_same_bytes(
    tmp_path: Path, model: embedder.Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BATCHES", 1)
    found = texts.Texts("here", WORDS)
    blocks.write(found, model, tmp_path / "whole", batch_size=2, quiet=True)
    out, counts = tmp_path / "killed", []
    for _ in range(10):
        child = os.fork()
        if not child:
            blocks.write(found, model, out, batch_size=2, quiet=True)
            os._exit(0)
        before = counts[-1] if counts else 0
        limit = time.monotonic() + 60
        while _done(out) <= before and time.monotonic() < limit:
            time.sleep(0.001)
        time.sleep(DRAWN.random() * 0.003)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts.append(_done(out))
    last = blocks.write(found, model, out, batch_size=2, quiet=True)
    assert counts[0] < len(WORDS)
    assert counts == sorted(counts)
    assert last.made == len(WORDS) - counts[-1]
    assert _bytes(out) == _bytes(tmp_path / "whole")
    assert blocks.write(found, model, out, batch_size=2, quiet=True).made == 0


def _done(out: Path) -> int:
    from graftlab.rundir import files

    record = out / blocks.RECORD
    return int(files.read_json(record)["done"]) if record.is_file() else 0


def _bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_full_disk_is_told_and_gone_on_from(tmp_path: Path, model: embedder.Embedder) -> None:
    found, before = texts.Texts("here", WORDS), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(DiskError, check=fault("unwritable")):
            blocks.write(found, model, tmp_path, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert blocks.write(found, model, tmp_path, quiet=True).made == len(WORDS)


class Filling:
    """An embedding model beside which the disk becomes full after some batches."""

    def __init__(self, model: embedder.Embedder, batches: int, limit: int) -> None:
        self.model, self.batches, self.limit = model, batches, limit
        self.origin, self.width = model.origin, model.width

    def encode(self, values: Any, batch_size: int) -> Any:
        self.batches -= 1
        if self.batches < 0:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, hard))
        return self.model.encode(values, batch_size)


def test_a_disk_that_becomes_full_on_the_way_costs_no_more_than_a_block(
    tmp_path: Path, model: embedder.Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BATCHES", 1)
    found, before = texts.Texts("here", WORDS), resource.getrlimit(resource.RLIMIT_FSIZE)
    blocks.write(found, model, tmp_path / "whole", batch_size=4, quiet=True)
    filling: Any = Filling(model, 5, 2000)
    try:
        with pytest.raises(DiskError, check=fault("unwritable")) as raised:
            blocks.write(found, filling, tmp_path / "full", batch_size=4, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(raised.value.problems) == 1
    last = blocks.write(found, model, tmp_path / "full", batch_size=4, quiet=True)
    assert last.made == len(WORDS) - 5 * 4
    assert _bytes(tmp_path / "full") == _bytes(tmp_path / "whole")


def test_vectors_are_made_again_by_the_model_that_made_them_asked_as_it_was(
    tmp_path: Path, folder: str
) -> None:
    asked = embedder.Request(
        folder, prompt="a ", pooling="cls", normalize=True, truncate_dim=8, max_seq_length=12
    )
    first = embedder.load(asked)
    again = embedder.reopen(first.origin)
    assert again.origin == first.origin
    np.testing.assert_array_equal(again.encode(WORDS, 32), first.encode(WORDS, 32))
    shutil.copytree(folder, tmp_path / "moved")
    moved = embedder.reopen(first.origin, str(tmp_path / "moved"))
    np.testing.assert_array_equal(moved.encode(WORDS, 32), first.encode(WORDS, 32))
    longer = dataclasses.replace(first.origin, max_seq_length=48)
    assert embedder.reopen(longer).origin.max_seq_length == 48
    (tmp_path / "other").mkdir()
    other = examples.text_model(tmp_path / "other", "encoder")
    moved_weights = {k: w + 0.5 for k, w in load_file(f"{other}/model.safetensors").items()}
    save_file(moved_weights, f"{other}/model.safetensors")
    with pytest.raises(ModelError, check=fault("other_embedder")):
        embedder.reopen(first.origin, other)
    assert embedder.reopen(first.origin, other, other=True).width == 8


def test_other_texts_and_other_settings_are_not_gone_on_with(
    tmp_path: Path, folder: str, model: embedder.Embedder
) -> None:
    blocks.write(texts.Texts("here", WORDS), model, tmp_path, quiet=True)
    with pytest.raises(ConfigError, check=fault("taken")):
        blocks.write(texts.Texts("here", WORDS[::-1]), model, tmp_path, quiet=True)
    other = embedder.load(embedder.Request(folder, pooling="cls", max_seq_length=16))
    with pytest.raises(ConfigError, check=fault("taken")):
        blocks.write(texts.Texts("here", WORDS), other, tmp_path, quiet=True)


def test_a_record_whose_vectors_are_gone_speaks_of_no_others(
    tmp_path: Path, model: embedder.Embedder
) -> None:
    found, limit = texts.Texts("here", WORDS), resource.getrlimit(resource.RLIMIT_FSIZE)
    blocks.write(found, model, tmp_path, quiet=True)
    expected = (tmp_path / blocks.VECTORS).read_bytes()
    (tmp_path / blocks.VECTORS).unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit[1]))
    try:
        with pytest.raises(DiskError):  # before its first block
            blocks.write(found, model, tmp_path, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    blocks.write(found, model, tmp_path, quiet=True)
    assert (tmp_path / blocks.VECTORS).read_bytes() == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\ntwo\n"),
        ("a.jsonl", '{"text": "one", "other": "x"}\n{"text": "two", "other": "y"}\n'),
        ("a.csv", "said\none\ntwo\n"),
    ],
)
def test_texts_are_read_from_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert texts.read(str(tmp_path / name), None)[""].values == ["one", "two"]


def test_texts_of_a_run_file_are_those_of_its_splits(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        lines = [f'{{"text": "{split} {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    run = tmp_path / "run.yaml"
    run.write_text(
        f"backbone: {{kind: tiny}}\nmethod: {{name: lora}}\n"
        f"task: {{kind: classification, data_dir: {tmp_path}}}\n"
    )
    found = texts.read(str(run), None)
    assert found["test"].values == [f"test {i}" for i in range(4)]
    assert list(found) == ["train", "validation", "test"]


def test_an_empty_text_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": " "}\n')
    with pytest.raises(DataError) as caught:
        texts.read(str(path), None)
    assert caught.value.problems[0].place.row == 2


def test_a_column_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,body\na,b\n")
    with pytest.raises(ConfigError, check=fault("missing", allowed=["title", "body"])):
        texts.read(str(path), None)
    with pytest.raises(ConfigError, check=fault("unknown", given="text")):
        texts.read(str(path), "text")


@pytest.mark.parametrize("wrong", [{"truncate_dim": 10_000}, {"max_seq_length": 10_000}])
def test_more_than_the_model_has_is_refused(folder: str, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, check=fault("not_allowed")):
        embedder.load(embedder.Request(folder, pooling="mean", **wrong))  # type: ignore[arg-type]


def test_pooling_is_asked_for_where_the_model_does_not_say_it(folder: str) -> None:
    with pytest.raises(ConfigError, check=fault("missing")):
        embedder.load(embedder.Request(folder))
