"""Processes that hold shards of the weights train what one process trains, and save what it saves.

Slow: a launcher and two fresh processes a test.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import several
import tiny_runs

import graftlab
from graftlab import config
from graftlab.errors import ConfigError
from graftlab.rundir.run import Run
from graftlab.runs import prediction
from graftlab.training import checkpoint
from graftlab.training import config as training
from graftlab.training.parallel import launch, request
from graftlab.training.parallel.processes import Processes

pytestmark = pytest.mark.slow  # whole runs in several processes

RECIPES = Path(graftlab.__file__).parent / "recipes" / "accelerate"
FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_RESHARD_AFTER_FORWARD": "true",
}  # fmt: skip
LATE = FSDP | {"FSDP_RESHARD_AFTER_FORWARD": "false", "FSDP_AUTO_WRAP_POLICY": "NO_WRAP"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "none"}
WAYS = {
    "fsdp": FSDP,
    "late": LATE,
    "zero2": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    # without its threshold, below which a weight is not shared out: all of this model's are
    "zero3": ZERO
    | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(Path(__file__).with_name("zero3.json"))},
}
ZEROS = ("zero2", "zero3") if importlib.util.find_spec("deepspeed") else ()  # an extra
needs_deepspeed = pytest.mark.skipif(not ZEROS, reason="deepspeed is not installed")
# Without dropout, whose masks are drawn for each process. 40 examples in batches of 13 leave one for
# the fourth step, which the second process has no share of; 7 and 6 are not as many micro-batches.
EVEN = {
    "backbone": {"dropout": 0.0},
    "training": {
        "batch_size": 13, "micro_batch_size": 3, "max_steps": 6, "label_smoothing": 0.1,
        "clip_norm": 0.5, "select": "last",
    },
}  # fmt: skip
METHODS = {
    "full": {"name": "full"},
    "lora": {"name": "lora", "dropout": 0.0},
    "pissa": {"name": "pissa", "dropout": 0.0},
    "jelly": {"name": "jelly", "dropout": 0.0, "mode": "seq2par", "switch_epoch": 0.5},
    "adalora": {"name": "adalora", "dropout": 0.0, "initial_rank": 4, "target_rank": 2},
}
CASES = [
    *[("fsdp", method) for method in METHODS],
    ("late", "lora"),
    *[(way, method) for way in ZEROS for method in ("full", "lora")],
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@functools.cache
def run_file(folder, method):
    tiny_runs.run_file(folder, EVEN)
    path = folder / "run.yaml"
    path.write_text(config.dump({**config.read_yaml(path), "method": METHODS[method]}))
    return path


def train_all(*jobs):
    """Train one run file after the other: (run file, directory)."""
    for path, out in jobs:
        several.train(path, out)


@pytest.fixture(scope="module")
def whole(home):
    """The runs of one process, by method."""
    jobs = {
        method: (run_file(home / f"{method} file", method), home / method) for method in METHODS
    }
    (ended,) = several.start(train_all, *jobs.values(), world=1)
    assert ended.code == 0, ended
    return {method: Run(out) for method, (_, out) in jobs.items()}


@pytest.fixture(scope="module")
def sharded(home, whole):
    """The runs of two processes, by way and method."""
    found = {}
    for way in dict(CASES):
        jobs = {
            (way, method): (run_file(home / f"{method} file", method), home / f"{way} {method}")
            for asked, method in CASES
            if asked == way
        }
        ended = several.start(train_all, *jobs.values(), environment=WAYS[way])
        assert [e.code for e in ended] == [0, 0], ended
        found |= {key: Run(out) for key, (_, out) in jobs.items()}
    return found


def assert_close(these, those):
    """Sums come out in another order; 6 steps of Adam carry that to at most 1e-5.

    A key's bias moves no score: its gradient is nothing but rounding, which Adam makes steps of.
    """
    assert these.keys() == those.keys()
    for name in these:
        assert these[name].dtype == those[name].dtype, name
        if not name.split("/")[0].endswith("key.bias"):
            np.testing.assert_allclose(these[name], those[name], rtol=0, atol=1e-5, err_msg=name)


def tensors(run, step):
    found = checkpoint.load(run.checkpoints / checkpoint.name(step)).tensors
    return {
        f"{name}/{group}": value.numpy()
        for group, values in found.items()
        for name, value in values.items()
    }


@pytest.mark.parametrize(("way", "method"), CASES, ids=[" ".join(case) for case in CASES])
def test_shards_train_what_one_process_trains(whole, sharded, way, method):
    one, two = whole[method], sharded[way, method]
    rows, others = one.read_metrics(), two.read_metrics()
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    for step in checkpoint.steps(one.checkpoints):
        assert_close(tensors(one, step), tensors(two, step))
    result, other = one.read_result(), two.read_result()
    assert other["parameters"] == result["parameters"]
    assert other["exact"]


@pytest.mark.parametrize(("way", "method"), CASES, ids=[" ".join(case) for case in CASES])
def test_the_directory_is_that_of_one_process(whole, sharded, way, method):
    from safetensors.numpy import load_file

    one, two = whole[method], sharded[way, method]
    files, others = (
        sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*")) for run in (one, two)
    )
    assert files == others
    for name in (
        name for name in files if name.startswith("adapter/") and name.endswith("tensors")
    ):
        assert_close(load_file(one.path / name), load_file(two.path / name))


def copy(run, folder):
    shutil.copytree(run, folder)
    return folder


@pytest.fixture(scope="module")
def stopped(home, whole):
    """Runs that a signal to one process has stopped after step 3, by way; and as one process."""
    path, patch = run_file(home / "lora file", "lora"), (several.before_step, 3)
    found = {}
    for way in ("fsdp", *ZEROS):
        terminate = several.on(1, *patch, several.terminate)
        out = home / f"stopped {way}"
        ended = several.start(several.train, path, out, terminate, environment=WAYS[way])
        assert [e.code for e in ended] == [143, 143], ended
        assert checkpoint.steps(out / "checkpoints")[-1] == 3
        found[way] = out
    terminate = several.on(0, *patch, several.terminate)
    (ended,) = several.start(several.train, path, home / "stopped", terminate, world=1)
    assert ended.code == 143, ended
    return found | {"whole": home / "stopped"}


SAME = ("adapter/adapter_model.safetensors", "metrics.jsonl")


@pytest.mark.parametrize("way", ["fsdp", *ZEROS])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(home, stopped, sharded, way):
    path = copy(stopped[way], home / f"on {way}")
    ended = several.start(several.train, None, path, environment=WAYS[way])
    assert [e.code for e in ended] == [0, 0], ended
    for name in SAME:
        assert (path / name).read_bytes() == (sharded[way, "lora"].path / name).read_bytes(), name
    reasons = Run(path).read_result()["not_exact"]
    assert not {"processes", "sharding"} & {reason.get("key") for reason in reasons}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fsdp", "whole"),
        ("whole", "fsdp"),
        pytest.param("zero3", "whole", marks=needs_deepspeed),
        pytest.param("whole", "zero3", marks=needs_deepspeed),
        pytest.param("zero2", "fsdp", marks=needs_deepspeed),
    ],
)
def test_a_run_goes_on_in_another_way_and_number_and_says_so(home, stopped, whole, before, after):
    from safetensors.numpy import load_file

    path = copy(stopped[before], home / f"{before} to {after}")
    world = 1 if after == "whole" else 2
    ended = several.start(several.train, None, path, world=world, environment=WAYS.get(after, {}))
    assert [e.code for e in ended] == [0] * world, ended
    adapters = [run / "adapter" / "adapter_model.safetensors" for run in (path, whole["lora"].path)]
    assert_close(*map(load_file, adapters))
    reasons = Run(path).read_result()["not_exact"]
    changed = {note["key"]: (note["before"], note["now"]) for note in reasons if "key" in note}
    assert changed["sharding"] == (before, after)
    if "whole" in (before, after):
        assert changed["processes"] == (2 if before != "whole" else 1, world)


def fail_in_a_pass(step):
    """Let this process's forward pass fail in a step, where the others wait for its shards."""
    from graftlab.tasks.classification import TextTask
    from graftlab.training.step import Stepper

    loss, step_of = TextTask.loss, Stepper.step

    def failing(self, model, batch, smoothing=0.0):
        if here[-1] == step:
            raise ZeroDivisionError("a bug")
        return loss(self, model, batch, smoothing)

    def stepping(self, number, rate):
        here.append(number)
        return step_of(self, number, rate)

    here = [0]
    TextTask.loss, Stepper.step = failing, stepping


def test_an_error_where_shards_are_exchanged_ends_all(home, whole):
    patch = several.on(1, fail_in_a_pass, 3)
    path = run_file(home / "lora file", "lora")
    ended = several.start(several.train, path, home / "bug", patch, environment=FSDP)
    assert [e.code for e in ended] == [1, 1], ended
    assert "ZeroDivisionError: a bug" in ended[1].value
    assert "another process of this run is gone" in ended[0].value


def test_accelerate_launches_shards(home, whole, sharded):
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch",
            "--config_file", str(RECIPES / "fsdp.yaml"), "-m", "graftlab", "run",
            str(run_file(home / "lora file", "lora")), "--out", str(home / "launched"),
        ],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Everything is in") == 1
    for name in SAME:
        same = (sharded["fsdp", "lora"].path / name).read_bytes()
        assert (home / "launched" / name).read_bytes() == same, name


def check(kind, settings, steers=False, quantized=False, **fields):
    variables = {**WAYS[kind], **settings}
    asked = request.Asked("fsdp" if kind == "fsdp" else "zero", variables)
    launch.sharding(asked, Processes()).check(training.Config(**fields), steers, quantized)


REFUSED = [
    ("fsdp", {"FSDP_VERSION": "1"}, {}, "Set fsdp_version: 2"),
    (
        "fsdp",
        {"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"},
        {},
        "fsdp_auto_wrap_policy SIZE_BASED_WRAP",
    ),
    ("fsdp", {}, {"optimizer": {"name": "adafactor"}}, "adafactor does not work on shards"),
    ("fsdp", {}, {"precision": "fp16"}, "Use bf16"),
    ("fsdp", {}, {"compile": True}, "training.compile"),
    ("fsdp", {}, {"quantized": True}, "backbone.quantization"),
    ("zero2", {}, {"steers": True}, "gradients"),
    ("zero2", {}, {"optimizer": {"name": "adagrad"}}, "known: adadelta, adam"),
    ("fsdp", {"FSDP_OFFLOAD_PARAMS": "true"}, {}, "fsdp_offload_params, which is not supported"),
    ("zero2", {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, {}, "stage 1; known: 2, 3"),
    (
        "zero2",
        {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"},
        {},
        "offload_param is not supported",
    ),
    ("zero3", {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "none.json"}, {}, "there is no none.json"),
]


@needs_deepspeed
@pytest.mark.parametrize(("kind", "settings", "fields", "said"), REFUSED)
def test_what_does_not_go_with_shards_is_refused(kind, settings, fields, said):
    with pytest.raises(ConfigError, match=said) as caught:
        check(kind, settings, **fields)
    assert caught.value.exit_code == 2


@needs_deepspeed
def test_what_the_run_file_says_has_no_place_in_deepspeeds_config(tmp_path):
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW"}}')
    with pytest.raises(ConfigError, match="section 'optimizer'"):
        check("zero2", {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)})


@needs_deepspeed
@pytest.mark.parametrize("stage", [2, 3])
def test_the_configs_of_deepspeed_are_found_by_their_names(stage):
    name = f"recipes/accelerate/zero{stage}.json"
    settings = WAYS["zero2"] | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": name}
    made = launch.sharding(request.Asked("zero", settings), Processes())
    assert made.name == f"zero{stage}"


WRITES = {  # an example at a time, so that processes write texts of different lengths at the same time
    "backbone": {"dropout": 0.0},
    "task": {
        "kind": "generation", "prompt": "{text}", "completion": "{label}", "max_length": 40,
        "generation": {"max_new_tokens": 6, "stop": ["/", "\u0016"]},
        "metrics": ["perplexity", "exact_match"],
    },
    "training": {"batch_size": 3, "micro_batch_size": 1, "max_steps": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def writing(home):
    """Run files of tasks that write texts, and what one process has written."""
    files = []
    for method in ("lora", "full"):
        folder = home / f"{method} writes"
        tiny_runs.run_file(folder)
        values = config.merge(config.read_yaml(folder / "run.yaml"), WRITES)
        del values["task"]["columns"]
        (folder / "run.yaml").write_text(config.dump({**values, "method": METHODS[method]}))
        files.append(folder / "run.yaml")
    jobs = [(path, path.parent / "one") for path in files]
    (ended,) = several.start(train_all, *jobs, world=1)
    assert ended.code == 0, ended
    return {path: texts(out) for path, out in jobs}


def texts(out):
    rows = prediction.read(Run(out).predictions("test"))
    return [row["prediction"] for row in rows]


@pytest.mark.parametrize("way", ["fsdp", *ZEROS[1:]])
def test_texts_are_written_in_step(writing, way):
    jobs = [(path, path.parent / way) for path in writing]
    ended = several.start(train_all, *jobs, environment=WAYS[way])
    assert [e.code for e in ended] == [0, 0], ended
    for path, out in jobs:
        assert texts(out) == writing[path]
        assert len({*map(len, texts(out))}) > 1  # else nobody has waited for anybody
