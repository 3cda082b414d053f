"""Files of vectors: read as other libraries read them, looked through once, told apart by their origin."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from graftlab.data.vectors import layout, scan, store
from graftlab.data.vectors.origin import Origin, differences
from graftlab.data.vectors.store import Vectors
from graftlab.errors import DataError

ORIGIN = Origin(
    "me/mine", "abc", {"model.safetensors": "12"}, "query: ", "mean", True, None, 256, "float32"
)
DRAWN = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def test_what_is_written_is_what_safetensors_reads_and_says_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    store.write(path, DRAWN, ORIGIN)
    np.testing.assert_array_equal(load_file(path)["embeddings"], DRAWN)
    found = Vectors(path)
    assert (len(found), found.width, found.origin) == (7, 5, ORIGIN)
    assert found.layout.offset % 8 == 0
    np.testing.assert_array_equal(found.take([6, 0, 6]), DRAWN[[6, 0, 6]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_number_format_is_read_as_torch_reads_it(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    stored = torch.from_numpy(DRAWN).to(dtype)
    save_file({"any name": stored, "bias": torch.zeros(3)}, path)
    taken = Vectors(path).take(slice(1, 4))
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, stored[1:4].float().numpy())


def test_numpys_own_files_are_read_and_a_copy_for_a_worker_holds_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.tile(DRAWN, (2000, 1)))
    found = Vectors(path)
    np.testing.assert_array_equal(found.take([7]), DRAWN[:1])
    packed = pickle.dumps(found)
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed).take([13999]), DRAWN[6:])


def test_a_file_is_looked_through_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    odd = DRAWN.copy()
    odd[[1, 2, 5]] = 0
    odd[3, 2], odd[6, 0] = np.nan, np.inf
    store.write(path, odd)
    found = scan.of(Vectors(path))
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.zero == [[1, 3], [5, 6]]
    assert found.not_finite == [[3, 4], [6, 7]]
    assert [found.fault(place) is not None for place in range(7)] == [
        place in {1, 2, 3, 5, 6} for place in range(7)
    ]
    kept = path.with_name(path.name + scan.KEPT)
    record = json.loads(kept.read_text())
    kept.write_text(json.dumps({**record, "sha256": "as it was kept"}))
    assert scan.of(Vectors(path)).sha256 == "as it was kept"
    store.write(path, DRAWN)
    again = scan.of(Vectors(path))
    assert (again.zero, again.not_finite) == ([], [])
    kept.write_text("{")
    assert scan.of(Vectors(path)) == again


def test_a_block_of_the_scan_ends_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.safetensors"
    odd = DRAWN.copy()
    odd[2:6] = 0
    store.write(path, odd)
    monkeypatch.setattr(scan, "BLOCK", 3 * 5 * 4)
    found = scan.of(Vectors(path))
    assert found.zero == [[2, 6]]
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def written(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path)
    return path


def cut(path: Path) -> Path:
    store.write(path, DRAWN)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def numpy_table(path: Path, table: Any) -> Path:
    np.save(path.with_suffix(".npy"), table, allow_pickle=True)
    return path.with_suffix(".npy")


def headed(header: Any) -> Callable[[Path], Path]:
    """Write a file of safetensors with this header, and enough bytes behind it for 10 x 4 numbers."""

    def write(path: Path) -> Path:
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(160))
        return path

    return write


def entry(**changes: Any) -> dict[str, Any]:
    whole = {"dtype": "F32", "shape": [10, 4], "data_offsets": [0, 160]} | changes
    return {"v": {key: value for key, value in whole.items() if value is not None}}


def several(path: Path) -> Path:
    with path.with_suffix(".npy").open("wb") as file:
        np.savez(file, a=DRAWN, b=DRAWN)
    return path.with_suffix(".npy")


def test_a_header_written_by_hand_is_read(tmp_path: Path) -> None:
    found = Vectors(headed(entry())(tmp_path / "v.safetensors"))
    assert (len(found), found.width) == (10, 4)


BAD = {
    "a list as header": headed([1]),
    "a word as header": headed("dtype shape data_offsets"),
    "a list as metadata": headed({"__metadata__": [1], **entry()}),
    "a number as entry": headed({"v": 1}),
    "no offsets": headed(entry(data_offsets=None)),
    "one offset": headed(entry(data_offsets=[0])),
    "no shape": headed(entry(shape=None)),
    "a shape of words": headed(entry(shape=["10", "4"])),
    "no dtype": headed(entry(dtype=None)),
    "offsets of nothing": headed(entry(data_offsets=[0, 0])),
    "offsets of less": headed(entry(data_offsets=[0, 80])),
    "offsets before the start": headed(entry(data_offsets=[-160, 0])),
    "offsets backwards": headed(entry(data_offsets=[160, 0])),
    "a nested header": lambda path: (
        path.write_bytes((90_000).to_bytes(8, "little") + b"[" * 90_000) and path
    ),
    "numpy's columns": lambda path: numpy_table(path, np.asfortranarray(DRAWN)),
    "several of numpy's": several,
    "missing": lambda path: path,
    "no header": lambda path: path.write_bytes(b"12") and path,
    "a long header": lambda path: path.write_bytes(b"\xff" * 40) and path,
    "no JSON": lambda path: path.write_bytes((8).to_bytes(8, "little") + b"{       ") and path,
    "cut short": cut,
    "two tables": lambda path: written(path, {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}),
    "a row alone": lambda path: written(path, {"a": torch.ones(2)}),
    "whole numbers": lambda path: written(path, {"a": torch.ones(2, 2, dtype=torch.int64)}),
    "none": lambda path: written(path, {"a": torch.ones(0, 2)}),
    "numpy's objects": lambda path: numpy_table(path, np.array([["a"]], dtype=object)),
    "numpy's cubes": lambda path: numpy_table(path, np.ones((2, 2, 2))),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_holds_no_vectors_is_refused(what: str, tmp_path: Path) -> None:
    path = BAD[what](tmp_path / "v.safetensors")
    with pytest.raises(DataError) as error:
        Vectors(path)
    assert error.value.problems[0].kind == ("missing" if what == "missing" else "unreadable")


def test_columns_are_told_from_what_is_no_table(tmp_path: Path) -> None:
    """The message names the order: as a table (7, 5) of floats it is just what is wanted."""
    path = numpy_table(tmp_path / "v.npy", np.asfortranarray(DRAWN))
    with pytest.raises(DataError, match="Fortran"):
        Vectors(path)


def test_one_of_several_tables_is_taken_by_its_name(tmp_path: Path) -> None:
    path = written(
        tmp_path / "v.safetensors", {"a": torch.ones(2, 2), layout.NAME: torch.ones(4, 3)}
    )
    assert (len(Vectors(path)), Vectors(path).width) == (4, 3)


def test_vectors_are_comparable_where_all_that_made_them_is_equal() -> None:
    record = ORIGIN.as_json()
    assert Origin.from_json(json.loads(json.dumps(record))) == ORIGIN
    assert differences(ORIGIN, ORIGIN) == {}
    moved = Origin.from_json({**record, "model": "/elsewhere", "revision": None})
    assert differences(ORIGIN, moved) == {}, "the same weights lie elsewhere"
    unknown = Origin.from_json({**record, "sha256": {}})
    assert differences(ORIGIN, unknown) == {}
    assert set(differences(moved, unknown)) == {"model", "revision"}
    for field, value in {
        "sha256": {"a": "b"},
        "prompt": "",
        "pooling": "cls",
        "normalized": False,
        "truncate_dim": 3,
        "max_seq_length": 9,
        "precision": "int8",
    }.items():
        other = Origin.from_json({**record, field: value})
        assert differences(ORIGIN, other) == {field: (record[field], value)}
    with pytest.raises(ValueError, match="extra"):
        Origin.from_json({**record, "extra": 1})
