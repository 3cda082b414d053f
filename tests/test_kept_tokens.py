"""Tokens that are kept between runs are those that are made, whatever has happened to what is kept."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graftlab
from graftlab.backbones import tiny
from graftlab.contracts import Problem
from graftlab.data import kept_arrays
from graftlab.data.kept_arrays import FOLDER, LEAST, kept_in
from graftlab.tasks._tokens import Texts

WORDS = ["what is kept", "is what was made", "", "ünd më\ud800hr"]


def tokenizer() -> Any:
    return tiny.load(tiny.Config(), Problem("classes", ("a", "b")), 0).processor


def texts(words: list[str] = WORDS, processor: Any = None, max_length: int = 9) -> Texts:
    return Texts(words, [None] * len(words), processor or tokenizer(), max_length)


def ids(found: Texts) -> list[list[int]]:
    return found.pad(range(len(found.lengths)))["input_ids"].tolist()


def kept(cache: Path) -> list[Path]:
    return sorted((cache / FOLDER).glob("*"))


def test_the_same_texts_are_kept_once_and_others_apart(tmp_path: Path) -> None:
    words, other = WORDS[:3], tokenizer()
    other.truncation_side = "left"
    with_more = tokenizer()
    with_more.add_tokens(["kept"])
    with kept_in(tmp_path, least=0):
        for _ in range(3):
            texts(words)
        assert len(kept(tmp_path)) == 1
        for number, change in enumerate(
            [
                lambda: texts(words[::-1]),
                lambda: texts(["".join(words[:2]), "", ""]),
                lambda: texts(words, max_length=8),
                lambda: texts(words, other),
                lambda: texts(words, with_more),
                lambda: Texts(words, words, tokenizer(), 9),
            ],
            start=2,
        ):
            change()
            assert len(kept(tmp_path)) == number


def test_what_pads_and_cuts_a_single_call_is_not_taken_for_another_tokenizer(
    tmp_path: Path,
) -> None:
    used = tokenizer()
    used(["a", "longer"], padding=True, truncation=True, max_length=4)
    with kept_in(tmp_path, least=0):
        texts(WORDS[:3])
        texts(WORDS[:3], used)
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["a byte", "an end", "nothing left"])
def test_what_is_damaged_is_seen_and_made_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = ids(texts(WORDS[:3]))
    with kept_in(tmp_path, least=0):
        texts(WORDS[:3])
        [path] = kept(tmp_path)
        whole = path.read_bytes()
        changed = {"a byte": whole[:-1] + bytes([whole[-1] ^ 1]), "an end": whole[:-1]}
        path.write_bytes(changed.get(damage, b""))
        with caplog.at_level(logging.WARNING, "graftlab"):
            assert ids(texts(WORDS[:3])) == expected
        assert [record.args for record in caplog.records] == [(path,)]
        assert [one.read_bytes() for one in kept(tmp_path)] == [whole]
        assert ids(texts(WORDS[:3])) == expected


def test_a_folder_that_cannot_be_written_is_said_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with kept_in(tmp_path, least=0), caplog.at_level(logging.WARNING, "graftlab"):
        assert ids(texts(WORDS[:3])) == ids(texts(WORDS[:3]))
    assert {record.args[0] for record in caplog.records} == {tmp_path / FOLDER}


def test_a_text_that_is_no_unicode_is_known_by_its_own_bytes(tmp_path: Path) -> None:
    made = {"found": np.arange(3, dtype=np.int32)}
    with kept_in(tmp_path, least=0):
        for _ in range(2):
            found = kept_arrays.of(WORDS, lambda: [], lambda: made)
    assert found["found"].tolist() == [0, 1, 2]
    assert not found["found"].flags.writeable
    assert len(kept(tmp_path)) == 1


def test_what_was_not_used_for_the_longest_time_goes(tmp_path: Path) -> None:
    import os

    made = {"found": np.zeros(1000, dtype=np.int64)}
    with kept_in(tmp_path, least=0, most=20_000):
        for number, name in enumerate(["old", "used", "young"]):
            kept_arrays.of([name], lambda: [], lambda: made)
            for path in kept(tmp_path):
                if path.stat().st_mtime > 1000:
                    os.utime(path, (number, number))
            if name == "young":
                break
        assert len(kept(tmp_path)) == 2
        left = {path.name for path in kept(tmp_path)}
        kept_arrays.of(["old"], lambda: [], lambda: made)
    assert len(left - {path.name for path in kept(tmp_path)}) == 1


def run_file(folder: Path, cache: Path) -> Path:
    for split, times in (("train", LEAST // 160), ("validation", 1), ("test", 1)):
        rows = [{"text": f"{split} {i} " * times, "label": i % 2} for i in range(20)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "run.yaml"
    path.write_text(
        f"backbone: {{kind: tiny, width: 8, layers: 1, max_length: 32}}\nmethod: {{name: lora}}\n"
        f"task: {{kind: classification, data_dir: {folder}}}\n"
        f"training: {{max_steps: 4, batch_size: 8, save_every: 2}}\npaths: {{cache: {cache}}}\n"
    )
    return path


@pytest.mark.slow
def test_a_run_has_the_same_bytes_whether_tokens_are_made_kept_or_read(tmp_path: Path) -> None:
    file, cache = run_file(tmp_path, tmp_path / "cache"), tmp_path / "cache"
    made = graftlab.run(file, out=tmp_path / "made")
    [path] = kept(cache)  # that of train: the others are short
    before = path.stat().st_ino
    read = graftlab.run(file, out=tmp_path / "read")
    assert [path.stat().st_ino for path in kept(cache)] == [before]
    (tmp_path / "blocked").write_text("no folder")
    anew = graftlab.run(
        file, overrides=[f"paths.cache={tmp_path / 'blocked'}"], out=tmp_path / "anew"
    )
    for name in ("metrics.jsonl", "adapter/adapter_model.safetensors", "predictions/test.jsonl"):
        one, *others = ((found.path / name).read_bytes() for found in (made, read, anew))
        assert all(other == one for other in others), name


def test_short_texts_are_not_kept(tmp_path: Path) -> None:
    with kept_in(tmp_path):
        texts(WORDS[:3])
    assert kept(tmp_path) == []
