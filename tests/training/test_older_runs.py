"""A run that an older version has begun goes on with this one, to the same bytes.

The older version is the package as it stood before its modules moved to their rooms, out of the history.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import tiny_runs
import torch

from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.training import checkpoint

pytestmark = pytest.mark.slow  # a fresh process imports everything

ROOT = Path(__file__).parents[2]
BEFORE = "3279812"  # the last commit before the move
DIES_AT = 8  # checkpoints stand at 0, 3, 4 and 6, lines of metrics.jsonl up to 7
RUN = f"""
import os, signal, sys
from pathlib import Path
from graftlab import config, experiment, runfile
from graftlab.training.steps import Stepper

step = Stepper.step

def dying(self, number, rate):
    if number == {DIES_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, number, rate)

Stepper.step = dying
file = runfile.resolve(config.read(sys.argv[1]))
experiment.run(file, Path(sys.argv[2]), options=experiment.Options(quiet=True))
"""
METHODS = {
    "lora": {},
    "jelly": {
        "method": {"name": "jelly", "dropout": 0.1}
    },  # hooks with state, other weights midway
    "full": {"method": {"name": "full"}, "training": {"clip_norm": 0.1, "logging_every": 5}},
}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Return a folder with the package as it was."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", BEFORE, "graftlab"]
    archived = subprocess.run(command, capture_output=True, check=False)
    if archived.returncode:
        pytest.skip(f"the history here does not reach back to {BEFORE}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(archived.stdout)) as package:
        package.extractall(folder, filter="data")
    return folder


def begin(before, path, out):
    """Begin a run with the older version, which is killed at a step."""
    places = {"PYTHONPATH": str(before), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", RUN, str(path), str(out)]
    ended = subprocess.run(
        command, env=os.environ | places, capture_output=True, text=True, cwd=path.parent
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def results(path):
    adapter = [p for p in (path / "adapter").rglob("*") if p.suffix == ".safetensors"]
    files = [*adapter, path / "metrics.jsonl", *(path / "predictions").iterdir()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_begun_before_the_move_ends_in_the_same_bytes(before, tmp_path, method, monkeypatch):
    changes = METHODS[method]
    if "method" in changes:  # in the place of LoRA's fields
        fields = {k: v for k, v in tiny_runs.TWELVE_STEPS.items() if k != "method"}
        monkeypatch.setattr(tiny_runs, "TWELVE_STEPS", fields)
    file = tiny_runs.run_file(tmp_path, changes)
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    begin(before, tmp_path / "run.yaml", begun)
    assert max(checkpoint.steps(begun / "checkpoints")) == 6
    assert not Run(begun).finished
    session.resume(begun, tiny_runs.quiet())
    session.run(file, whole, options=tiny_runs.quiet())
    assert results(begun) == results(whole)
    assert Run(begun).read_result()["steps"] == 12
