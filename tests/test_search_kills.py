"""A search that is killed again and again ends with the bytes of one that never was.

Slow: a fresh process after each of ten kills.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graftlab import search

SEARCH = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: lora}
  training:
    {max_steps: 900, batch_size: 4, evaluate_every: 100, save_every: 5, logging_every: 1, learning_rate: 1e-2}
space:
  method.rank: {int: [1, 8]}
pruner: {name: none}
trials: 1
"""
KILLS = 10


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, first in (("train", 0), ("test", 30)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{n % 2}" for n in range(first, first + 30)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    Path("search.yaml").write_text(SEARCH, encoding="utf-8")


def begin():
    return subprocess.Popen(
        [sys.executable, "-m", "graftlab", "tune", "search.yaml", "--out", "out"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def lines():
    """Return how many lines of metrics the trial's run has written."""
    return sum(path.read_bytes().count(b"\n") for path in Path("out/runs").glob("*/metrics.jsonl"))


def kill(process):
    """Kill the search and the process of its run, which is not in its group."""
    for lock in Path("out/runs").glob("*/lock"):
        os.kill(int(lock.read_text().split()[1]), signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_trial_killed_at_ten_random_moments_ends_with_the_bytes_of_one_never_killed():
    drawn = random.Random(7)
    for _ in range(KILLS):
        process, enough = begin(), lines() + drawn.randrange(1, 60)
        deadline = time.monotonic() + 120
        while (known := lines()) < enough:
            assert time.monotonic() < deadline, known
            assert process.poll() is None, process.communicate()[0]
            time.sleep(drawn.random() * 0.02)
        kill(process)
    ended = begin()
    said = ended.communicate(timeout=300)[0]
    assert ended.returncode == 0, said
    found = search.carry_out(search.read("search.yaml"), Path("whole"), quiet=True)
    (run,) = {trial.user_attrs["run"] for trial in found.trials}
    log = (Path("out/runs") / run / "run.log").read_text()
    assert log.count("going on from step") == KILLS
    for name in (
        "metrics.jsonl",
        "adapter/adapter_model.safetensors",
        "predictions/validation.jsonl",
    ):
        whole, killed = (Path(out) / "runs" / run / name for out in ("whole", "out"))
        assert killed.read_bytes() == whole.read_bytes(), name
