"""A study on a Ray cluster: what is refused, and a node that is lost.

Slow: a cluster of three nodes, each some processes.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graftlab import study
from graftlab.errors import ConfigError, DataError
from graftlab.rundir import files
from graftlab.runs import identity
from graftlab.workers import Crew, on_ray
from graftlab.workers.on_ray import Head

STUDY = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  training: {max_steps: 300, batch_size: 4, evaluate_every: 100, save_every: 10, learning_rate: 1e-2}
methods: [head, {name: lora, rank: 2}]
seeds: [0, 1]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with reviews of one word, where a study file finds them."""
    monkeypatch.chdir(tmp_path)
    for name, first in (("train", 0), ("test", 30)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{n % 2}" for n in range(first, first + 30)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    Path("study.yaml").write_text(STUDY, encoding="utf-8")


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


def compare(address, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "graftlab", "compare", "study.yaml", "--out", "out", "--on", "ray", *options],
        env={**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001", "nonsense"])
def test_an_address_where_no_cluster_is_is_refused_at_once(address):
    with pytest.raises(ConfigError) as caught:
        on_ray.reach(address)
    assert [(p.kind, p.given) for p in caught.value.problems] == [("no_cluster", address)]


@pytest.mark.slow
def test_a_lost_nodes_run_goes_on_elsewhere_and_the_study_ends_as_on_one_machine(
    monkeypatch,
):
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # a machine that others use would starve them
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    working = compare(cluster.address, "--heartbeat", "1")
    try:
        deadline = time.monotonic() + 400
        while len(at_work := at_a_checkpoint()) < 2:
            assert time.monotonic() < deadline, at_work
            assert working.poll() is None, working.communicate()[0]
            time.sleep(0.02)
        cluster.remove_node(nodes[0], allow_graceful=False)
        said = working.communicate(timeout=600)[0]
        assert working.returncode == 0, said
    finally:
        working.kill()
        cluster.shutdown()
    kept = [files.read_json(path) for path in Path("out/runs").glob("*/environment.json")]
    assert len(kept) == 4
    assert any("resumes" in environment for environment in kept)
    for run in study.carry_out(study.read("study.yaml"), Path("alone"), quiet=True):
        whole, there = (Path(out) / "runs" / run.folder.name for out in ("alone", "out"))
        assert (there / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def at_a_checkpoint():
    """Return the runs that have a checkpoint after their first."""
    found = Path("out/runs").glob("*/checkpoints/step-*")
    return {path.parents[1].name for path in found if path.name[5:].strip("0").isdigit()}
