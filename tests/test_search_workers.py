"""Two workers of one search on PostgreSQL, one of which is killed. Slow: both import what runs need."""

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import postgres
import pytest

from graftlab import search
from graftlab.search import identity, storage

SEARCH = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: lora}
  training: {max_steps: 150, batch_size: 4, evaluate_every: 50, save_every: 10, learning_rate: 1e-3}
space:
  training.learning_rate: {float: [1e-4, 1e-1], log: true}
  method.rank: {int: [1, 8]}
pruner: {name: none}
trials: 6
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, first in (("train", 0), ("test", 30)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{n % 2}" for n in range(first, first + 30)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    Path("search.yaml").write_text(SEARCH, encoding="utf-8")


def worker(url):
    return subprocess.Popen(
        [sys.executable, "-m", "graftlab", "tune", "search.yaml", "--out", "out"],
        env={**os.environ, storage.VARIABLE: url, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def at_work():
    """Return the runs that have a checkpoint after their first."""
    found = Path("out/runs").glob("*/checkpoints/step-*")
    return {p.parents[1].name for p in found if not p.name.endswith("000000")}


@pytest.mark.slow
def test_a_killed_workers_trial_goes_on_elsewhere_and_nothing_is_lost_or_doubled(here):
    with postgres.server() as database:
        first = worker(database.url)
        deadline = time.monotonic() + 120
        while not at_work():
            assert time.monotonic() < deadline
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.02)
        second = worker(database.url)
        os.killpg(first.pid, signal.SIGKILL)
        said = first.communicate()[0] + second.communicate(timeout=300)[0]
        assert second.returncode == 0, said
    with Path("out/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    complete = [row for row in rows if row["state"] == "complete"]
    assert len(complete) == 6
    assert len({row["run"] for row in complete}) == 6
    lost = [row for row in rows if row["state"] == "fail"]
    assert lost, "the killed worker had a trial"
    assert {row["run"] for row in lost} <= {row["run"] for row in complete}
    default = next(float(row["accuracy"]) for row in complete if row["method.rank"] == "8")
    assert max(float(row["accuracy"]) for row in complete) >= default
    everywhere = said + "".join(
        p.read_text(encoding="utf-8", errors="replace")
        for p in Path("out").rglob("*")
        if p.is_file()
    )
    assert "s3cret" not in everywhere


@pytest.mark.slow
def test_a_database_that_is_gone_for_a_while_is_waited_for(here):
    with postgres.server() as database:
        first = worker(database.url)
        deadline = time.monotonic() + 120
        while not at_work():
            assert time.monotonic() < deadline
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.02)
        database.control("stop")
        time.sleep(10)
        assert first.poll() is None, first.communicate()[0]
        database.control("start")
        said = first.communicate(timeout=300)[0]
        assert first.returncode == 0, said
    with Path("out/trials.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["complete"] * 6


def join(url):
    """Do what a worker does first."""
    identity.remember(search.read("search.yaml"), Path("out"), (), False)
    storage.open_storage(url, Path("out"))


@pytest.mark.slow
def test_workers_that_begin_at_once_all_find_one_search_and_the_tables_of_an_empty_database(here):
    import optuna  # noqa: F401  (before they are forked, so that they come to the database together)

    context = multiprocessing.get_context("fork")
    with postgres.server() as database:
        workers = [context.Process(target=join, args=(database.url,)) for _ in range(8)]
        for one in workers:
            one.start()
        for one in workers:
            one.join()
    assert [one.exitcode for one in workers] == [0] * 8
