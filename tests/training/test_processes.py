"""Two processes train what one trains, stop together, and go on to the same bytes.

Slow: a launcher and two fresh processes a test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import several
import tiny_runs

import graftlab
from graftlab import config
from graftlab.rundir.run import Run
from graftlab.runs import prediction
from graftlab.training import checkpoint

pytestmark = pytest.mark.slow  # whole runs in several processes

SAME = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "metrics.jsonl")
RECIPES = Path(graftlab.__file__).parent / "recipes" / "accelerate"
# Without dropout, whose masks are drawn for each process. 40 examples in batches of 13 leave one for
# the fourth step, which the second process has no share of; 7 and 6 are not as many micro-batches.
EVEN = {
    "backbone": {"dropout": 0.0},
    "method": {"name": "lora", "dropout": 0.0},
    "hooks": [
        {"name": "norms", "every": 3, "of": ["gradient", "weight", "update", "distance"]},
        {"name": "anchor", "strength": 0.1},
    ],
    "training": {
        "batch_size": 13, "micro_batch_size": 3, "max_steps": 8, "label_smoothing": 0.1,
        "clip_norm": 0.5,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


def run_file(folder, changes, method=None):
    """Write a run file of 12 steps with sections laid over it; `method` stands in the place of LoRA's."""
    tiny_runs.run_file(folder, changes)
    path = folder / "run.yaml"
    if method:
        path.write_text(config.dump({**config.read_yaml(path), "method": method}))
    return path


@pytest.fixture(scope="module")
def even(home):
    """A run in one process and the same in two: (one, two, how the two have ended)."""
    path = run_file(home / "even", EVEN)
    one = several.start(several.train, path, home / "one", world=1)
    two = several.start(several.train, path, home / "two")
    assert [ended.code for ended in (*one, *two)] == [0, 0, 0], (one, two)
    return Run(home / "one"), Run(home / "two"), (*one, *two)


def assert_close(these, those):
    """Sums come out in another order: 8 steps of Adam carry differences of 1e-7 to at most 1e-5."""
    assert these.keys() == those.keys()
    for name in these:
        np.testing.assert_allclose(these[name], those[name], rtol=0, atol=1e-5, err_msg=name)


def assert_equal(these, those):
    assert these.keys() == those.keys()
    for name in these:
        assert these[name].tobytes() == those[name].tobytes(), name


def test_the_losses_norms_and_scores_are_those_of_one_process(even):
    one, two, _ = even
    rows, others = one.read_metrics(), two.read_metrics()
    assert len([row for row in rows if "gradient_norm" in row]) == 8
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-5)


def test_the_weights_are_the_same_bits_everywhere_and_nearly_those_of_one_process(even):
    alone, first, second = (ended.value[0] for ended in even[2])
    assert_equal(first, second)
    assert_close(alone, first)


def test_predictions_stand_in_the_order_of_the_split(even):
    one, two, _ = even
    for split in ("validation", "test"):
        rows = prediction.read(one.predictions(split))
        others = prediction.read(two.predictions(split))
        assert [row["index"] for row in others] == list(range(8))
        for row, other in zip(rows, others, strict=True):
            assert row["prediction"] == other["prediction"]
            assert row["probabilities"] == pytest.approx(other["probabilities"], rel=1e-5)


def test_the_directory_is_that_of_one_process(even):
    one, two, _ = even
    files, others = (
        sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*")) for run in (one, two)
    )
    assert files == others
    assert two.log.read_text().count("finished:") == 1
    result, other = one.read_result(), two.read_result()
    assert (result["processes"], other["processes"]) == (1, 2)
    assert result["exact"]
    assert other["exact"]
    assert json.loads(two.environment.read_text())["processes"] == 2


ADALORA = {"name": "adalora", "dropout": 0.0, "initial_rank": 4, "target_rank": 2}
JELLY = {"name": "jelly", "dropout": 0.0, "mode": "seq2par", "switch_epoch": 1.0}
METHODS = {"adalora": ADALORA, "jelly": JELLY, "pissa": {"name": "pissa", "dropout": 0.0}}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_methods_keep_the_processes_together(home, method):
    """AdaLoRA shares out ranks on the way, JELLY changes what trains, PiSSA draws from a factorisation."""
    name = method["name"]
    path = run_file(home / f"{name} file", EVEN, method)
    (one,) = several.start(several.train, path, home / f"{name} one", world=1)
    first, second = several.start(several.train, path, home / f"{name} two")
    assert (one.code, first.code, second.code) == (0, 0, 0), (one, first, second)
    assert_equal(first.value[0], second.value[0])
    assert_close(one.value[0], first.value[0])


@pytest.fixture(scope="module")
def file(home):
    return run_file(home / "file", {"training": {"workers": 1}})


@pytest.fixture(scope="module")
def whole(home, file):
    """The bytes of a run in two processes, with dropout and workers, that was left alone."""
    ended = several.start(several.train, file, home / "whole")
    assert [e.code for e in ended] == [0, 0], ended
    return {name: (home / "whole" / name).read_bytes() for name in SAME}


def assert_goes_on_to(expected, path, world=2):
    ended = several.start(several.train, None, path, world=world)
    assert [e.code for e in ended] == [0] * world, ended
    for name, content in expected.items():
        assert (path / name).read_bytes() == content, name
    result = Run(path).read_result()
    assert result["exact"], result["not_exact"]


def test_when_one_is_killed_the_others_end_and_the_run_goes_on_to_the_same_bytes(home, file, whole):
    path = home / "killed"
    for rank, step, begun in ((0, 5, file), (1, 9, None)):
        patch = several.on(rank, several.before_step, step, several.kill)
        ended = several.start(several.train, begun, path, patch)
        assert ended[rank].code == -9
        assert "another process of this run is gone" in ended[1 - rank].value
        assert checkpoint.steps(path / "checkpoints")[-1] == step - 1
    assert_goes_on_to(whole, path)


def test_a_signal_to_one_stops_all_at_the_same_step_with_a_checkpoint(home, file, whole):
    path = home / "stopped"
    for rank, begun, patch, step in (
        (1, file, (several.before_step, 2, several.terminate), 2),
        (1, None, (several.terminate_in_evaluation,), 4),
        (0, None, (several.before_step, 7, several.terminate), 7),
    ):
        ended = several.start(several.train, begun, path, several.on(rank, *patch))
        assert [e.code for e in ended] == [143, 143], ended
        assert all("stopped by SIGTERM" in e.value for e in ended)
        assert checkpoint.steps(path / "checkpoints")[-1] == step
    assert_goes_on_to(whole, path)


def test_a_run_goes_on_in_another_number_of_processes_and_says_so(home, even):
    path = home / "other number"
    patch = several.everywhere(several.before_step, 5, several.terminate)
    ended = several.start(several.train, home / "even" / "run.yaml", path, patch)
    assert [e.code for e in ended] == [143, 143], ended
    (one,) = several.start(several.train, None, path, world=1)
    assert one.code == 0, one
    result = Run(path).read_result()
    changed = {"key": "processes", "before": 2, "now": 1}
    assert result["not_exact"] == [{"kind": "environment_changed", **changed}]
    assert_close(one.value[0], even[2][0].value[0])


def test_memory_that_runs_out_in_one_halves_the_micro_batch_of_all(home, even):
    path = home / "out of memory"
    patch = several.on(1, several.small_memory, 2)
    ended = several.start(several.train, home / "even" / "run.yaml", path, patch)
    assert [e.code for e in ended] == [0, 0], ended
    assert_equal(ended[0].value[0], ended[1].value[0])
    assert_close(ended[0].value[0], even[2][0].value[0])
    result = Run(path).read_result()
    assert result["not_exact"] == [{"kind": "memory_ran_out", "now": 2, "asked": 3}]
    assert "step 1" in Run(path).log.read_text()


def test_one_example_that_does_not_fit_in_one_ends_all(home):
    path = home / "no memory"
    patch = several.on(1, several.small_memory, 0)
    ended = several.start(several.train, home / "even" / "run.yaml", path, patch)
    assert [e.code for e in ended] == [5, 5], ended


def test_an_error_in_one_ends_all_with_its_message(home, even):
    path = home / "error"
    patch = several.on(1, several.before_step, 3, several.spoil)
    ended = several.start(several.train, home / "even" / "run.yaml", path, patch)
    assert [e.code for e in ended] == [3, 3], ended
    assert ended[0].value == "DataError: row 7 cannot be read (in process 1)"
    assert "in spoil" in Run(path).log.read_text()  # with the traceback


def test_a_bug_in_one_ends_all_and_is_named(home, even):
    path = home / "bug"
    patch = several.on(1, several.before_step, 3, several.break_down)
    ended = several.start(several.train, home / "even" / "run.yaml", path, patch)
    assert [e.code for e in ended] == [1, 1], ended
    assert "process 1)" in ended[0].value


def test_processes_that_drift_apart_end_at_the_next_checkpoint(home, even):
    path = home / "drifted"
    patch = several.on(1, several.drift, 2)
    ended = several.start(several.train, home / "even" / "run.yaml", path, patch)
    assert [e.code for e in ended] == [1, 1], ended
    assert "process (1" in ended[0].value
    assert checkpoint.steps(path / "checkpoints")[-1] == 0


def buffers(path, out):
    seen = []
    several.train(path, out, several.everywhere(several.count_examples, seen))
    return seen


def test_buffers_are_the_main_process_s_after_each_step(home, even):
    ended = several.start(buffers, home / "even" / "run.yaml", home / "buffers")
    # its share of two epochs: three times 7 of 13 examples, and one
    assert [e.value for e in ended] == [[2 * (3 * 7 + 1)]] * 2


def test_a_full_disk_ends_all(home, even):
    path = home / "full"
    patch = several.everywhere(several.full_disk)
    ended = several.start(several.train, home / "even" / "run.yaml", path, patch)
    assert [e.code for e in ended] == [8, 8], ended


def test_the_second_attempt_on_a_directory_is_refused_in_all(home, even):
    ended = several.start(several.train, home / "even" / "run.yaml", home / "two")
    assert [e.code for e in ended] == [2, 2], ended
    assert all("holds a finished run" in e.value for e in ended)


def test_no_two_micro_batches_draw_the_same_dropout(even):
    first, second = (ended.value[1] for ended in even[2][1:])
    # shares of 7 and 6 examples in micro-batches of 3, and an epoch's last step with one example
    assert (len(first), len(second)) == (2 * (3 * 3 + 1), 2 * 3 * 2)
    assert len({*first, *second}) == len(first) + len(second)


def test_accelerate_launches_a_run_that_speaks_once(home, even):
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch",
            "--config_file", str(RECIPES / "cpu.yaml"), "-m", "graftlab", "run",
            str(home / "even" / "run.yaml"), "--out", str(home / "launched"),
        ],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Everything is in") == 1
    assert done.stderr.count("random weights") == 1
    two = even[1]
    for name in SAME:
        assert (home / "launched" / name).read_bytes() == (two.path / name).read_bytes(), name


def test_configs_of_the_launcher_are_no_recipes():
    configs = ("cpu.yaml", "ddp.yaml", "ddp1.yaml", "fsdp.yaml", "zero2.yaml", "zero3.yaml")
    files = sorted([*configs, "zero2.json", "zero3.json"])
    assert sorted(path.name for path in RECIPES.iterdir()) == files
    assert not any(name.startswith("accelerate") for name in config.recipes())
