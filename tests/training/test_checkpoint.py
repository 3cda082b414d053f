"""Checkpoints survive: what is damaged is noticed, walked past and kept; what is foreign is left alone."""

import errno
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from faults import fault

from graftlab.errors import CheckpointError, DiskError
from graftlab.rundir import files
from graftlab.training import checkpoint


def save(folder, step):
    values = torch.arange(64.0) + step
    moments = {"m": values * 2}
    return checkpoint.save(
        folder,
        step,
        {"trainable": {"w": values}, "optimizer": moments, "hooks": {}},
        {"note": step},
    )


@pytest.fixture
def folder(tmp_path):
    for step in (0, 3, 6):
        save(tmp_path / "checkpoints", step)
    return tmp_path / "checkpoints"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def zero_the_tail(path):
    data = path.read_bytes()
    path.write_bytes(data[:-100] + bytes(100))


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


DAMAGE = [truncate, flip_a_bit, zero_the_tail, empty, remove]
FILES = ["trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_means_the_checkpoint_before_it(folder, damage, file):
    damage(folder / "step-000006" / file)
    found = checkpoint.find(folder)
    assert found.path == folder / "step-000003"
    (note,) = found.problems
    assert file in note.fields["files"]
    assert note.fields["aside"] == "step-000006.corrupt"
    assert (folder / "step-000006.corrupt").is_dir()
    assert (folder / "latest").read_text() == "step-000003\n"
    torch.testing.assert_close(checkpoint.load(found.path).tensors["trainable"]["w"][0].item(), 3.0)


def test_safetensors_alone_would_not_notice_a_flipped_bit(folder):
    flip_a_bit(folder / "step-000006" / "trainable.safetensors")
    assert checkpoint.load(folder / "step-000006").step == 6  # why there is a manifest
    assert checkpoint.damage(folder / "step-000006") == {"trainable.safetensors": "changed"}


def test_damaged_twice_the_same_step_keeps_both(folder):
    truncate(folder / "step-000006" / "state.json")
    checkpoint.find(folder)
    truncate(save(folder, 6) / "state.json")
    checkpoint.find(folder)
    assert (folder / "step-000006.corrupt").is_dir()
    assert (folder / "step-000006.corrupt2").is_dir()


def test_where_all_are_bad_each_is_named_and_nothing_is_deleted(folder):
    flip_a_bit(folder / "step-000000" / "trainable.safetensors")
    remove(folder / "step-000003" / "manifest.json")
    truncate(folder / "step-000006" / "state.json")
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.find(folder)
    assert caught.value.exit_code == 7
    assert caught.value.problems[0].kind == "damaged"
    for line in (
        "step-000000: trainable.safetensors has changed",
        "step-000003: manifest.json is missing",
        "step-000006: state.json has changed",
        "allow_inexact=True",
    ):
        assert line in str(caught.value)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_without_the_rest_are_used_only_when_that_is_allowed(folder, damage):
    for step in (0, 3, 6):
        damage(folder / checkpoint.name(step) / "optimizer.safetensors")
    with pytest.raises(CheckpointError):
        checkpoint.find(folder)
    found = checkpoint.find(folder, allow_inexact=True)
    assert found.path == folder / "step-000006"
    assert "optimizer.safetensors" in found.inexact.fields["files"]
    loaded = checkpoint.load(found.path, found.damaged)
    assert sorted(loaded.tensors) == ["hooks", "trainable"]


def test_damaged_weights_are_never_used(folder):
    for step in (0, 3, 6):
        flip_a_bit(folder / checkpoint.name(step) / "trainable.safetensors")
    with pytest.raises(CheckpointError):
        checkpoint.find(folder, allow_inexact=True)


def test_names_that_are_no_checkpoints_are_left_alone(folder):
    for name in (
        "step-abc",
        "step-1e3",
        "step-12",
        "checkpoint-900",
        "step-000009.partial",
        "mine",
    ):
        (folder / name).mkdir()
    (folder / "step-000012").write_text("a file")
    assert checkpoint.steps(folder) == [0, 3, 6]
    assert checkpoint.find(folder).path == folder / "step-000006"
    assert (folder / "step-000012").read_text() == "a file"


def test_an_empty_checkpoint_is_walked_past(folder):
    (folder / "step-000900").mkdir()
    assert checkpoint.find(folder).path == folder / "step-000006"


def test_no_folder_is_no_checkpoint(tmp_path):
    assert checkpoint.find(tmp_path / "none").path is None


@pytest.mark.parametrize("content", ["step-000003\n", "step-000099\n", "", None])
def test_latest_is_repaired(folder, content):
    if content is None:
        (folder / "latest").unlink()
    else:
        (folder / "latest").write_text(content)
    assert checkpoint.find(folder).path == folder / "step-000006"
    assert (folder / "latest").read_text() == "step-000006\n"


def test_a_dangling_latest_link_is_replaced(folder):
    (folder / "latest").unlink()
    (folder / "latest").symlink_to(folder / "gone")
    checkpoint.find(folder)
    assert (folder / "latest").read_text() == "step-000006\n"


def test_a_copy_elsewhere_is_as_good(folder, tmp_path):
    copied = tmp_path / "another machine" / "checkpoints"
    shutil.copytree(folder, copied)
    shutil.rmtree(folder)
    assert checkpoint.find(copied).path == copied / "step-000006"


def test_the_newest_is_told_by_its_number_and_not_by_its_time(folder):
    import os

    os.utime(folder / "step-000006", (0, 0))
    os.utime(folder / "step-000000", (2**31, 2**31))
    assert checkpoint.find(folder).path == folder / "step-000006"


def test_a_newer_format_is_walked_past_as_other_damage_is(folder):
    manifest = folder / "step-000006" / "manifest.json"
    values = json.loads(manifest.read_text()) | {"format": checkpoint.FORMAT + 1}
    manifest.write_text(json.dumps(values))
    found = checkpoint.find(folder)
    assert found.path == folder / "step-000003"
    assert found.problems[0].fields["files"] == {"manifest.json": "newer"}
    assert (folder / "step-000006.corrupt").is_dir()


def test_rotation_keeps_the_newest_the_pinned_and_what_is_foreign(folder):
    (folder / "step-000009.mine").mkdir()
    (folder / "notes").mkdir()
    (folder / "step-000001.partial").mkdir()
    (folder / "step-000006.corrupt").mkdir()
    for step in (9, 12):
        save(folder, step)
    checkpoint.rotate(folder, keep=1, pinned={0, 3})
    left = {path.name for path in folder.iterdir()}
    assert left == {
        "step-000000", "step-000003", "step-000012", "latest",
        "step-000009.mine", "notes", "step-000006.corrupt",
    }  # fmt: skip


def test_the_same_step_is_written_over_whole(folder):
    values = {"trainable": {"w": torch.zeros(2)}}
    checkpoint.save(folder, 6, values, {})
    assert checkpoint.damage(folder / "step-000006") == {}
    assert checkpoint.load(folder / "step-000006").tensors["trainable"]["w"].tolist() == [0.0, 0.0]
    assert not list(folder.glob("*.old"))


def fail_at(monkeypatch, module, name, number, error):
    """Make the `number`-th call of a function raise; later calls, as on a disk that was freed, go on."""
    real, calls = getattr(module, name), iter(range(1, 10**6))

    def failing(*arguments, **named):
        if next(calls) == number:
            raise error
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, failing)


SAFETENSORS_FULL = RuntimeError(
    "Error while serializing: I/O error: No space left on device (os error 28)"
)


@pytest.mark.quick("5-*")
@pytest.mark.parametrize("number", range(1, 13))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_a_disk_that_fails_at_any_fsync_leaves_the_older_ones_whole(
    folder, monkeypatch, number, code
):
    import os

    fail_at(monkeypatch, os, "fsync", number, OSError(code, os.strerror(code)))
    try:
        save(folder, 9)
    except DiskError as error:
        # late calls have the checkpoint in its place, so an error is not certain
        assert (error.exit_code, str(folder) in str(error)) == (8, True)  # noqa: PT017
        assert not list(folder.glob("*.partial"))
    monkeypatch.undo()
    for step in (0, 3, 6):
        assert checkpoint.damage(folder / checkpoint.name(step)) == {}
    assert checkpoint.find(folder).path.name in ("step-000006", "step-000009")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_full_disk_under_safetensors_is_a_full_disk(folder, monkeypatch, number):
    fail_at(monkeypatch, files, "save_tensors", number, SAFETENSORS_FULL)
    with pytest.raises(DiskError, check=fault("unwritable")):
        save(folder, 9)
    assert not list(folder.glob("*.partial"))
    assert checkpoint.find(folder).path == folder / "step-000006"


def test_a_real_limit_of_the_system_is_a_full_disk(folder):
    """RLIMIT_FSIZE in a child: the write itself is cut off, in safetensors' own code."""
    import os
    import resource
    import signal

    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            checkpoint.save(folder, 9, {"trainable": {"w": torch.zeros(4000)}}, {})
        except DiskError:
            os._exit(8)
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
    assert not list(folder.glob("*.partial"))
    assert checkpoint.find(folder).path == folder / "step-000006"


def test_a_place_that_is_no_folder_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, check=fault("unwritable")):
        save(tmp_path / "file" / "checkpoints", 0)


def test_room_is_made_of_the_oldest_that_nobody_needs(folder):
    assert checkpoint.make_room(folder, pinned={0})
    assert checkpoint.steps(folder) == [0, 6]
    assert not checkpoint.make_room(folder, pinned={0})  # never the newest
    assert checkpoint.steps(folder) == [0, 6]


def test_too_small_a_disk_is_said_before_the_first_step(tmp_path, caplog, monkeypatch):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(DiskError, check=fault("disk_full")):
        checkpoint.check_room(tmp_path, free + 2**40, keep=2)
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200 * 2**10))
        with pytest.raises(DiskError, match=r"200 KiB.*300 KiB"):
            checkpoint.check_room(tmp_path, 300 * 2**10, keep=2)
    checkpoint.check_room(tmp_path, free // 3, keep=2)
    assert [record.args[0] for record in caplog.records] == [tmp_path]


def test_nested_states_come_back(tmp_path):
    state = {
        "a": [torch.ones(2), {"b": torch.zeros(1), "c": None}],
        "d": 1.5,
        "e": "text",
        "f": (1,),
    }
    tensors = {}
    packed = json.loads(json.dumps(checkpoint.pack(state, tensors)))
    assert list(tensors) == ["a/0", "a/1/b"]  # safetensors has flat names
    back = checkpoint.unpack(packed, tensors)
    assert back["a"][0] is state["a"][0]
    assert back["a"][1]["b"] is state["a"][1]["b"]
    assert (back["a"][1]["c"], back["d"], back["e"], back["f"]) == (None, 1.5, "text", [1])
