"""Several processes that carry out one study: who lives, who has which run, and what a kill changes.

Slow: several fresh processes a test, which all import torch.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graftlab import study
from graftlab.errors import ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.workers import Crew
from graftlab.workers.claims import Claims
from graftlab.workers.presence import Presence, check_locks

STUDY = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  training: {max_steps: 600, batch_size: 4, evaluate_every: 300, save_every: 50, learning_rate: 1e-2}
methods: [head, {name: lora, rank: 2}]
seeds: [0, 1, 2]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with reviews of one word, where a study file finds them."""
    monkeypatch.chdir(tmp_path)
    for name, first in (("train", 0), ("test", 30)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{n % 2}" for n in range(first, first + 30)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    Path("study.yaml").write_text(STUDY, encoding="utf-8")


def hold(folder):
    """Return the number of another process, which holds the lock of a folder."""
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        with Run(folder).lock():
            os.write(writes, b"1")
            time.sleep(60)
        os._exit(0)
    os.read(reads, 1)
    return child


def elsewhere(age_s, name="elsewhere-00000000-7-1"):
    """Leave what a process of another machine leaves that gave its last sign of life so long ago."""
    lock = Path("workers") / name / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (time.time() - age_s,) * 2)
    return name


def test_a_process_of_this_machine_lives_while_it_holds_its_lock():
    with Presence(Path("workers")).at_work():
        mine = Presence(Path("workers"))
        with mine.at_work():
            name = f"{mine.machine}-7-1"
            held = hold(Path("workers") / name)
            os.utime(Path("workers") / name / "lock", (0, 0))  # of which the time says nothing here
            assert mine.alive(name)
            assert mine.alive(mine.name)
            os.kill(held, signal.SIGKILL)
            os.waitpid(held, 0)
            assert not mine.alive(name)


def test_a_process_of_another_machine_lives_while_its_signs_of_life_come():
    mine = Presence(Path("workers"), beat_s=5)
    with mine.at_work():
        assert mine.alive(elsewhere(25))
        assert not mine.alive(elsewhere(35))
        assert not mine.alive("elsewhere-00000000-8-1")


def test_a_process_of_another_machine_is_judged_by_the_signs_of_life_that_it_gives():
    """Not by those of whoever asks: a worker that was told to give them seldom is not dead for that."""
    mine, other = Presence(Path("workers"), beat_s=5), Presence(Path("workers"), beat_s=20)
    with mine.at_work(), other.at_work():
        written = (Path("workers") / other.name / "beat_s").read_text()
        for age_s, number, alive in ((100, 1, True), (140, 2, False)):
            name = elsewhere(age_s, f"elsewhere-00000000-7-{number}")
            (Path("workers") / name / "beat_s").write_text(written)
            assert mine.alive(name) is alive


def test_signs_of_life_come_as_often_as_was_said():
    mine = Presence(Path("workers"), beat_s=0.02)
    with mine.at_work():
        lock = Path("workers") / mine.name / "lock"
        os.utime(lock, (0, 0))
        while lock.stat().st_mtime == 0:
            time.sleep(0.01)
    assert not lock.parent.exists()


def test_whoever_holds_a_runs_lock_gives_signs_of_life_by_it(monkeypatch):
    monkeypatch.setattr("graftlab.rundir.holder.BEAT_S", 0.02)
    lock = Path("run") / "lock"
    with Run(lock.parent).lock():
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 10
        while lock.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    os.utime(lock, (0, 0))
    time.sleep(0.1)
    assert lock.stat().st_mtime == 0  # nobody holds it


def test_a_study_that_another_process_carries_out_opens_no_engine(monkeypatch):
    """A cluster is joined, and the directory written to, only by who may carry out the study."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where nobody answers: `no_cluster`
    held = hold(Path("out"))
    try:
        with pytest.raises(ConfigError) as caught:
            study.carry_out(study.read("study.yaml"), Path("out"), crew=Crew(on="ray"))
    finally:
        os.kill(held, signal.SIGKILL)
        os.waitpid(held, 0)
    assert [problem.kind for problem in caught.value.problems] == ["in_use"]
    assert not (Path("out") / "workers").exists()


def claims(presence):
    return Claims(Path("claims"), presence)


def as_another(name):
    made = Presence(Path("workers"))
    made.name = name
    return made


def test_a_run_is_one_processs_until_that_gives_it_up_or_dies():
    mine = Presence(Path("workers"), beat_s=5)
    with mine.at_work():
        other = elsewhere(0)
        theirs = claims(as_another(other)).take("a run")
        assert theirs is not None
        assert claims(mine).take("a run") is None
        assert claims(mine).take("another run") is not None
        elsewhere(60)
        anew = claims(mine).take("a run")
        assert anew is not None
        assert claims(as_another(other)).lost(
            theirs
        )  # it comes back, and sees that it was given up
        assert not claims(mine).lost(anew)
        claims(mine).release(anew)
        elsewhere(0)
        assert claims(as_another(other)).take("a run") is not None


def test_a_failure_is_known_to_those_that_were_there_and_tried_again_by_those_that_come_later():
    mine = Presence(Path("workers"), beat_s=5)
    with mine.at_work():
        claim = claims(mine).take("a run")
        claims(mine).release(claim, "no such layer")
        assert claims(mine).failed("a run") == "no such layer"
        assert claims(mine).failed("another run") is None
        mine.began += 60
        assert claims(mine).failed("a run") is None


def test_a_folder_whose_locks_keep_nobody_out_is_refused(tmp_path):
    lock = tmp_path / "study" / "workers" / "me" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with pytest.raises(ConfigError) as caught:
        check_locks(lock)  # which nobody holds: as if the hold had been lost on the way
    (problem,) = caught.value.problems
    assert (problem.kind, problem.given) == ("no_locks", str(tmp_path / "study"))


def test_one_that_shares_and_one_that_does_not_keep_each_other_out():
    held = hold(Path("out"))
    with pytest.raises(ConfigError) as caught, Run(Path("out")).lock(shared=True):
        pass
    os.kill(held, signal.SIGKILL)
    os.waitpid(held, 0)
    assert caught.value.problems[0].kind == "in_use"


SHARED = ("compare", "study.yaml", "--share")


def begin(*options, command=SHARED):
    return subprocess.Popen(
        [sys.executable, "-m", "graftlab", *command, "--out", "out", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_a_checkpoint(*processes):
    """Wait until as many runs as there are processes have a checkpoint after their first, and go on."""
    deadline = time.monotonic() + 400
    while len(at_work()) < len(processes):
        assert time.monotonic() < deadline
        assert all(one.poll() is None for one in processes), processes[0].communicate()[0]
        time.sleep(0.02)


def at_work():
    found = Path("out/runs").glob("*/checkpoints/step-*")
    runs = {path.parents[1] for path in found if path.name[5:].strip("0").isdigit()}
    return {path for path in runs if not Run(path).finished}


def kill_with_its_run(process):
    """Kill a process and the one of its run, as when their machine is gone."""
    os.kill(process.pid, signal.SIGKILL)
    for lock in Path("out/runs").glob("*/lock"):
        if not Run(lock.parent).finished:
            os.kill(int(lock.read_text().split()[1]), signal.SIGKILL)


@pytest.mark.slow
def test_of_three_that_share_a_study_one_is_killed_and_each_run_is_carried_out_once():
    killed = begin()
    wait_for_a_checkpoint(killed)
    others = [begin("--workers", "2"), begin()]
    kill_with_its_run(killed)
    said = [other.communicate(timeout=300)[0] for other in others]
    assert [other.returncode for other in others] == [0, 0], said
    runs = [Run(path.parent) for path in Path("out/runs").glob("*/result.json")]
    assert len(runs) == 6
    resumes = [len(files.read_json(run.environment).get("resumes", ())) for run in runs]
    assert sorted(resumes) == [0, 0, 0, 0, 0, 1]
    alone = study.carry_out(study.read("study.yaml"), Path("alone"), quiet=True)
    for run in alone:
        whole, shared = (Path(out) / "runs" / run.folder.name for out in ("alone", "out"))
        assert (shared / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    with Path("out/runs.csv").open(newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {run.path.name for run in runs}


SEARCH = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: head}
  training: {max_steps: 600, batch_size: 4, evaluate_every: 300, save_every: 50}
space: {training.learning_rate: {float: [1e-3, 1e-1], log: true}}
trials: 4
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", [SHARED, ("tune", "search.yaml")], ids=["compare", "tune"])
def test_those_that_are_told_to_stop_save_and_each_run_is_gone_on_with(command):
    Path("search.yaml").write_text(SEARCH, encoding="utf-8")
    told = {signal.SIGTERM: 143, signal.SIGINT: 130}
    processes = [begin(command=command) for _ in told]
    wait_for_a_checkpoint(*processes)
    for process, number in zip(processes, told, strict=True):
        process.send_signal(number)
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [*told.values()], said
    begun = [Run(path) for path in sorted(at_work())]
    assert len(begun) == 2
    assert not [run.path for run in begun if run.held_by()]
    for run in begun:
        assert session.resume(run.path, session.Options(quiet=True)).finished
        assert len(run.read_environment()["resumes"]) == 1
