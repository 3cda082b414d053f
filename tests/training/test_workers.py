"""Worker processes that are killed or hang: they begin again at the step that is wanted, or are given up."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from graftlab.errors import DataError
from graftlab.training import workers as module
from graftlab.training.order import Batches, Order
from graftlab.training.parallel.share import Share


class Rows:
    """A task whose batches are their indices; `spoil` happens in the process that makes one."""

    def __init__(self, spoil=None):
        self.spoil = spoil

    def batch(self, split, indices, epoch):
        if self.spoil:
            self.spoil(indices)
        return {"rows": torch.tensor(indices)}


@pytest.fixture
def made():
    """Return a function that makes batches, by two workers unless told otherwise, which end afterwards."""
    kept = []

    def make(task, workers=2):
        kept.append(Batches(task, Order(np.arange(1, 24), 5, 7, False), 12, Share(), workers))
        return kept[-1]

    yield make
    for batches in kept:
        batches.restart()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.5)
    monkeypatch.setattr(module, "PATIENCE", 1.0)


def rows(batches, step):
    return [batch["rows"].tolist() for batch in batches.get(step)]


def test_killed_workers_begin_again_at_the_same_step(made, caplog):
    batches, alone = made(Rows()), made(Rows(), workers=0)
    assert rows(batches, 1) == rows(alone, 1)
    for worker in batches._ahead._batches._workers:
        os.kill(worker.pid, signal.SIGKILL)
    assert [rows(batches, step) for step in range(2, 10)] == [rows(alone, s) for s in range(2, 10)]
    (said,) = caplog.records
    step, why = said.args
    assert said.levelname == "WARNING"
    assert step in range(2, 10)
    assert why
    assert "\n" not in why


def test_a_tokenizers_threads_are_not_carried_into_a_fork(made, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # somebody's own wish stays
    made(Rows(), workers=1).get(1)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    made(Rows(), workers=1).get(1)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_signals_are_the_runs_and_a_second_sigterm_ends_a_worker(made, caplog):
    batches, alone = made(Rows(), workers=1), made(Rows(), workers=0)
    assert rows(batches, 1) == rows(alone, 1)
    (worker,) = batches._ahead._batches._workers
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert [rows(batches, step) for step in (2, 3, 4)] == [rows(alone, step) for step in (2, 3, 4)]
    assert worker.is_alive()
    assert caplog.records == []
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(5)
    assert worker.exitcode == -signal.SIGTERM
    assert rows(batches, 5) == rows(alone, 5)


def test_torchs_handler_of_dead_workers_is_taken_back_where_that_can_be_done(made):
    """It would raise wherever the run happens to be; only the main thread may set handlers."""

    def mine(*_):
        """Do nothing."""

    before = signal.signal(signal.SIGCHLD, mine)
    try:
        assert made(Rows()).get(1)
        assert signal.getsignal(signal.SIGCHLD) is mine
        found = []
        thread = threading.Thread(target=lambda: found.append(rows(made(Rows()), 1)))
        thread.start()
        thread.join()
        assert found == [rows(made(Rows(), workers=0), 1)]
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
def test_workers_that_are_killed_again_end_the_run_with_the_reason(made):
    here = os.getpid()

    def die(indices):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match="step 1:"):
        made(Rows(die)).get(1)


@pytest.mark.slow
def test_a_worker_that_hangs_shows_where_and_begins_again(made, tmp_path: Path, capfd, caplog):
    flag, here = tmp_path / "once", os.getpid()

    def hang(indices):
        if os.getpid() != here and not flag.exists():
            flag.touch()
            time.sleep(60)

    batches, alone = made(Rows(hang)), made(Rows(), workers=0)
    assert [rows(batches, step) for step in (1, 2, 3)] == [rows(alone, step) for step in (1, 2, 3)]
    assert "for 1" in caplog.text
    assert "in hang" in capfd.readouterr().err
    batches.restart()
    assert not multiprocessing.active_children()


def test_an_error_of_the_task_itself_stays_what_it_is(made):
    def fail(indices):
        raise RuntimeError("the row is odd")

    with pytest.raises(RuntimeError, match="the row is odd"):
        made(Rows(fail)).get(1)
