"""The table of which run goes on where: what it says of a run, read from its files."""

import json
import os
from pathlib import Path

from graftlab.rundir.run import Run
from graftlab.workers import Slot
from graftlab.workers.board import Board


def test_a_slot_says_which_run_it_has_where_it_is_and_how_far_it_has_come(tmp_path):
    board, run = Board([Slot(0, 1), Slot(1, 1)]), Run(tmp_path / "a")
    with board.on(Slot(1, 1), "a", run.path):
        assert board.rows()[0][2] == "free"
        assert board.rows()[1][:3] == ("a", "", "waiting")
        with run.lock():
            assert board.rows()[1][1:3] == (os.uname().nodename, "starting")
            lines = [
                {"step": 0, "validation/train_data_size": 30},
                {"step": 20, "validation/accuracy": 0.75, "validation/loss": 0.5},
                {"step": 25, "loss": 0.4},
            ]
            run.metrics.write_text(
                "".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 30'
            )
            assert board.rows()[1][2:5] == ("training", "25", "accuracy 0.75")
    assert board.rows()[1][2] == "free"


def test_only_the_end_of_long_metrics_is_read(tmp_path):
    run = Run(tmp_path / "a")
    run.path.mkdir()
    run.metrics.write_text("".join(f'{{"step": {n}, "loss": 0.5}}\n' for n in range(100_000)))
    board = Board([Slot(0, 1)])
    with board.on(Slot(0, 1), "a", run.path):
        assert board.rows()[0][3] == "99999"


def test_nothing_is_drawn_where_there_is_no_terminal(tmp_path, capfd):
    with Board([Slot(0, 1), Slot(1, 1)]).shown(quiet=False):
        print("inside")
    assert capfd.readouterr() == ("inside\n", "")


def test_a_folder_that_is_gone_is_a_run_that_waits():
    board = Board([Slot(0, 1)])
    with board.on(Slot(0, 1), "a", Path("nowhere")):
        assert board.rows()[0][2] == "waiting"
