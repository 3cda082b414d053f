"""The files of a checkpoint: what is in them, what an earlier crash has left, and what makes room."""

import hashlib
import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

from graftlab.errors import CheckpointError, DiskError
from graftlab.rundir import files
from graftlab.training import checkpoint

TENSORS = {"trainable": {"w": torch.arange(4.0)}, "hooks": {}}


@pytest.fixture
def folder(tmp_path):
    for step in (0, 3, 6):
        checkpoint.save(tmp_path, step, TENSORS, {"note": step})
    return tmp_path


def test_a_manifest_has_the_sum_of_every_file_and_all_say_format_and_step(folder):
    path = checkpoint.save(folder, 9, TENSORS, {"note": [1, None]})
    assert path == folder / "step-000009"
    sums = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    assert set(sums) == {"trainable.safetensors", "hooks.safetensors", "state.json"}
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest == {"format": checkpoint.FORMAT, "step": 9, "sha256": sums}
    state = json.loads((path / "state.json").read_text())
    assert state == {"format": checkpoint.FORMAT, "step": 9, "note": [1, None]}
    assert load_file(path / "trainable.safetensors")["w"].tolist() == [0, 1, 2, 3]
    assert (folder / "latest").read_text() == "step-000009\n"


def test_a_large_step_has_as_many_digits_as_it_needs(tmp_path):
    for step in (1_000_000, 999_999):
        checkpoint.save(tmp_path, step, TENSORS, {})
    assert checkpoint.steps(tmp_path) == [999_999, 1_000_000]
    assert checkpoint.find(tmp_path).path == tmp_path / "step-1000000"


def test_what_a_crash_has_left_of_the_same_step_is_cleared_away(tmp_path):
    for name in ("step-000003.partial", "step-000003.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "junk").write_text("half a file")
    for _ in range(2):
        checkpoint.save(tmp_path, 3, TENSORS, {})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000003"]
        assert not (tmp_path / "step-000003" / "junk").exists()
        (tmp_path / "step-000003.old").mkdir()


def test_an_error_that_is_no_disks_stays_what_it_is_and_leaves_nothing(folder):
    with pytest.raises(TypeError):
        checkpoint.save(folder, 9, TENSORS, {"note": object()})
    assert checkpoint.steps(folder) == [0, 3, 6]
    assert not list(folder.glob("*.partial"))


@pytest.fixture
def full(monkeypatch):
    """Return a list of how many times more the disk is full."""
    times, real = [0], files.save_tensors

    def save_tensors(path, tensors):
        if times[0]:
            times[0] -= 1
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(files, "save_tensors", save_tensors)
    return times


def test_room_is_made_once_and_said(folder, full, caplog):
    full[0] = 1
    path = checkpoint.save_with_room(folder, 9, TENSORS, {"note": 9}, {0})
    assert path == folder / "step-000009"
    assert checkpoint.steps(folder) == [0, 6, 9]
    assert checkpoint.load(path).state["note"] == 9
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert isinstance(said.args[0], DiskError)


@pytest.mark.parametrize(
    ("pinned", "times", "left"),
    [({0}, 2, [0, 6]), ({0, 3}, 1, [0, 3, 6]), ({0, 3, 6}, 1, [0, 3, 6])],
)
def test_where_there_is_none_to_make_the_disk_is_full(folder, full, pinned, times, left):
    full[0] = times
    with pytest.raises(DiskError) as caught:
        checkpoint.save_with_room(folder, 9, TENSORS, {}, pinned)
    assert caught.value.exit_code == 8
    assert checkpoint.steps(folder) == left
    for step in left:
        assert checkpoint.damage(folder / checkpoint.name(step)) == {}


def test_of_one_checkpoint_none_is_spared_and_of_none_neither(tmp_path):
    assert not checkpoint.make_room(tmp_path, set())
    checkpoint.save(tmp_path, 3, TENSORS, {})
    assert not checkpoint.make_room(tmp_path, set())
    assert checkpoint.steps(tmp_path) == [3]


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{}",
        '{"sha256": {}}',
        '{"sha256": 3, "format": 1}',
        '{"sha256": {}, "format": "x"}',
    ],
)
def test_a_manifest_that_is_none_is_unreadable(folder, manifest):
    path = folder / "step-000006"
    (path / "manifest.json").write_text(manifest)
    assert checkpoint.damage(path) == {"manifest.json": "unreadable"}


def test_each_file_is_missing_changed_or_unlisted(folder):
    path = folder / "step-000006"
    (path / "hooks.safetensors").unlink()
    (path / "state.json").write_text("{}")
    assert checkpoint.damage(path) == {"hooks.safetensors": "missing", "state.json": "changed"}
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]["trainable.safetensors"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoint.damage(path)["trainable.safetensors"] == "unlisted"
    (path / "manifest.json").unlink()
    assert checkpoint.damage(path) == {"manifest.json": "missing"}


def test_a_newest_one_that_is_damaged_is_told_with_its_files_and_name(folder):
    (folder / "step-000006" / "state.json").unlink()
    found = checkpoint.find(folder)
    (note,) = found.problems
    assert note.fields == {
        "checkpoint": "step-000006", "files": {"state.json": "missing"},
        "aside": "step-000006.corrupt",
    }  # fmt: skip
    assert (found.inexact, found.damaged) == (None, frozenset())


def test_weights_alone_are_gone_on_from_with_what_they_lack(folder):
    for step in (0, 3, 6):
        (folder / checkpoint.name(step) / "hooks.safetensors").write_bytes(b"")
    (folder / "step-000006" / "trainable.safetensors").write_bytes(b"")
    found = checkpoint.find(folder, allow_inexact=True)
    assert found.path == folder / "step-000003"
    assert found.inexact.fields == {
        "checkpoint": "step-000003", "files": {"hooks.safetensors": "changed"},
    }  # fmt: skip
    assert found.damaged == {"hooks.safetensors"}
    assert checkpoint.steps(folder) == [0, 3, 6]
    with pytest.raises(CheckpointError):
        checkpoint.find(folder)


def test_without_a_manifest_weights_that_can_be_read_are_as_good_as_that(folder):
    for step in (0, 3, 6):
        (folder / checkpoint.name(step) / "manifest.json").unlink()
    (folder / "step-000006" / "trainable.safetensors").write_bytes(b"no tensors")
    (folder / "step-000003" / "state.json").write_text("{}")
    found = checkpoint.find(folder, allow_inexact=True)
    assert found.path == folder / "step-000000"
    assert found.damaged == {"manifest.json"}


@pytest.mark.parametrize(("keep", "left"), [(1, [0, 12]), (2, [0, 9, 12]), (9, [0, 3, 6, 9, 12])])
def test_as_many_of_the_newest_stay_beside_the_pinned(folder, keep, left):
    for step in (9, 12):
        checkpoint.save(folder, step, TENSORS, {})
    (folder / "step-000003.old").mkdir()
    checkpoint.rotate(folder, keep, {0})
    assert checkpoint.steps(folder) == left
    assert not list(folder.glob("*.old"))


@pytest.mark.parametrize(
    ("share", "keep", "said"), [(0.3, 2, True), (0.3, 1, False), (0.9, 0, True)]
)
def test_less_room_than_what_stays_and_the_two_beside_is_said(folder, caplog, share, keep, said):
    size = int(shutil.disk_usage(folder).free * share)
    checkpoint.check_room(folder, size, keep)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * said
    if said:
        path, free, needed = caplog.records[0].args
        assert path == folder
        assert free == pytest.approx(size / share / 2**20, rel=0.02)
        assert needed == (keep + 2) * size / 2**20
