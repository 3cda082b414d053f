"""A study on a Ray cluster: what is refused, and a node that is lost.

Slow: a cluster of three nodes, each some processes.
"""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from graftlab import study
from graftlab.errors import ConfigError, DataError
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import identity
from graftlab.workers import Crew, Orders, on_ray
from graftlab.workers.on_ray import Head, Job

STUDY = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  training: {max_steps: 300, batch_size: 4, evaluate_every: 100, save_every: 10, learning_rate: 1e-2}
methods: [head, {name: lora, rank: 2}]
seeds: [0, 1]
"""
SEARCH = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: head}
  training: {max_steps: 600, batch_size: 4, evaluate_every: 300, save_every: 10}
space: {training.learning_rate: {float: [1e-3, 1e-1], log: true}}
trials: 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with reviews of one word, where a study file finds them."""
    monkeypatch.chdir(tmp_path)
    for name, first in (("train", 0), ("test", 30)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{n % 2}" for n in range(first, first + 30)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    Path("search.yaml").write_text(SEARCH, encoding="utf-8")


def head(**other):
    known = {"mark": "m", "made_with": on_ray.made_with(), "cwd": ".", "out": str(Path.cwd())}
    on_ray.mark(Head(**known, beat_s=20.0))
    return Head(**{**known, "beat_s": 20.0, **other})


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"made_with": {**on_ray.made_with(), "python": "2.7.18"}}, "other_code"),
        ({"made_with": {**on_ray.made_with(), "code": "0" * 64}}, "other_code"),
        ({"mark": "another head's"}, "not_shared"),
        ({"out": "/nowhere"}, "not_shared"),
        ({"cwd": "/nowhere"}, "not_shared"),
    ],
)
def test_a_node_that_is_not_as_the_head_is_refused(wrong, kind):
    on_ray.check(head())
    with pytest.raises(ConfigError) as caught:
        on_ray.check(head(**wrong))
    assert [problem.kind for problem in caught.value.problems] == [kind]


def test_a_second_head_in_the_same_folder_does_not_break_the_first():
    first = head()
    on_ray.mark(first._replace(mark="another's"))
    on_ray.check(first)


def test_rows_that_are_not_the_heads_are_refused():
    identity.compare_data({"train": "a"}, {"fingerprint": {"train": "a"}})
    with pytest.raises(DataError) as caught:
        identity.compare_data({"train": "a"}, {"fingerprint": {"train": "b"}})
    assert [(p.kind, p.given) for p in caught.value.problems] == [("changed", {"train": "b"})]


def test_a_ray_that_is_too_old_is_refused():
    on_ray.check_version("2.50.0")
    with pytest.raises(ConfigError) as caught:
        on_ray.check_version("2.9.3")
    assert caught.value.problems[0].kind == "too_old"


@pytest.mark.parametrize(
    "wrong",
    [{"on": "slurm"}, {"on": "ray", "share": True}, {"needs": {"GPU": 1.0}}, {"beat_s": 0.0}],
)
def test_a_crew_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        Crew(**wrong)


@pytest.mark.slow
def test_a_run_that_its_head_gives_up_ends_without_saving():
    """Another process may have gone on with it: two would write one run."""
    (planned, *_) = study.read("study.yaml", NO_END).runs
    run = Run(Path("out/runs/given-up"))
    job = Job(str(run.path.absolute()), planned.document, Orders(quiet=True), head(), "mark")
    giving_up = threading.Thread(target=lambda: (at_work(run), files.write_text(job.given_up, "")))
    giving_up.start()
    ended = on_ray.task(job)
    giving_up.join()
    assert ended.cause is not None
    assert [int(path.name[5:]) for path in run.checkpoints.glob("step-*")] == [0]
    assert on_ray.task(job._replace(folder="out/runs/never")).cause is not None
    assert not Path("out/runs/never").exists()


NO_END = ["base.training.max_steps=1000000", "base.training.save_every=0", "base.training.evaluate_every=0",
          "base.training.logging_every=1"]  # fmt: skip


def at_work(run):
    """Wait until a run has made steps."""
    deadline = time.monotonic() + 100
    while not run.metrics.is_file() or run.metrics.stat().st_size < 2000:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begin(address, *command):
    return subprocess.Popen(
        [sys.executable, "-m", "graftlab", *command, "--out", "out", "--on", "ray", "--heartbeat", "1"],
        env={**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001", "nonsense"])
def test_an_address_where_no_cluster_is_is_refused_at_once(address):
    with pytest.raises(ConfigError) as caught:
        on_ray.reach(address)
    assert [(p.kind, p.given) for p in caught.value.problems] == [("no_cluster", address)]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # a machine that others use would starve them
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        yield made, nodes
        made.shutdown()


@contextlib.contextmanager
def working(cluster, *command):
    """Yield a command on the cluster when two runs are at work."""
    process = begin(cluster.address, *command)
    try:
        deadline = time.monotonic() + 400
        while len(runs := at_a_checkpoint()) < 2:
            assert time.monotonic() < deadline, runs
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        yield process
    finally:
        process.kill()


def ended(process):
    said = process.communicate(timeout=500)[0]
    assert process.returncode == 0, said
    return [files.read_json(path) for path in Path("out/runs").glob("*/environment.json")]


@pytest.mark.slow
def test_a_killed_workers_trial_goes_on_and_the_search_ends(cluster):
    with working(cluster[0], "tune", "search.yaml", "--workers", "2") as search:
        there = {
            int(path.parent.name.split("-")[-2]) for path in Path("out/workers").glob("*/lock")
        }
        os.kill(min(there - {search.pid}), signal.SIGKILL)
        kept = ended(search)
    assert sorted(len(environment.get("resumes", ())) for environment in kept) == [0, 0, 1]
    with Path("out/trials.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["complete"] * 3


@pytest.mark.slow
def test_a_lost_nodes_run_goes_on_elsewhere_and_the_study_ends_as_on_one_machine(cluster):
    with working(cluster[0], "compare", "study.yaml") as comparing:
        cluster[0].remove_node(cluster[1][0], allow_graceful=False)
        kept = ended(comparing)
    assert len(kept) == 4
    assert any("resumes" in environment for environment in kept)
    for run in study.carry_out(study.read("study.yaml"), Path("alone"), quiet=True):
        whole, there = (Path(out) / "runs" / run.folder.name for out in ("alone", "out"))
        assert (there / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def at_a_checkpoint():
    """Return the runs that have a checkpoint after their first."""
    found = Path("out/runs").glob("*/checkpoints/step-*")
    return {path.parents[1].name for path in found if path.name[5:].strip("0").isdigit()}
