"""What an analysis sets aside: each thing once, and gone with its process, however that ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from graftlab.explanation.spool import YOUNG_S, Spool

HOLDS = """
import sys
from graftlab.explanation.spool import Spool
import torch
with Spool() as spool:
    spool.put("a", {"weight": torch.ones(3)})
    print(spool._folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # as in a new process


def files(folder):
    return sorted(path.name for path in Path(folder).rglob("*.safetensors"))


def test_what_is_put_twice_lies_there_once_and_comes_back_by_both_keys(tmp_path):
    with Spool() as spool:
        weight = torch.arange(6.0).reshape(2, 3)
        spool.put("run one", {"weight": weight})
        spool.put("run two", {"weight": weight.clone()})
        assert len(files(tmp_path)) == 1
        for other in (weight.reshape(3, 2), weight.to(torch.bfloat16), weight + 1):
            spool.put(f"{other.dtype} {tuple(other.shape)} {other.sum()}", {"weight": other})
        spool.put("by another name", {"left": weight})
        assert len(files(tmp_path)) == 5
        assert all(spool.get(key)["weight"].equal(weight) for key in ("run one", "run two"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_a_killed_process_has_left_goes_with_the_next_and_what_is_in_use_stays(tmp_path):
    made = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDS], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    killed, alive = (Path(process.stdout.readline().strip()) for process in made)
    made[0].kill()
    made[0].wait()
    with Spool():
        assert killed.is_dir()  # its lock is young: it might not have been taken yet
    for folder in (killed, alive):
        os.utime(folder / "lock", (time.time() - 2 * YOUNG_S,) * 2)
    with Spool() as outer:
        outer.put("mine", {"weight": torch.ones(2)})
        with Spool():
            assert not killed.exists()
            assert files(alive)
        assert outer.get("mine")["weight"].equal(torch.ones(2))
    made[1].communicate("")
    assert not list(tmp_path.iterdir())
