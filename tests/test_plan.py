"""What a plan says is what the run then takes."""

import gc
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from typer.testing import CliRunner

from graftlab import config, runfile
from graftlab.cli import app
from graftlab.planning import advice, blocks, forecast, live_tensors, memory, shards, sizes
from graftlab.planning.rehearsal import build_loop, frozen
from graftlab.runs import attachment
from graftlab.seeds import mix
from graftlab.training import devices
from graftlab.training.parallel.processes import Processes


@pytest.fixture
def write(tmp_path):
    """Return what writes a run file over 24 rows of texts, and resolves it."""
    for split, count in (("train", 24), ("validation", 4), ("test", 4)):
        rows = [{"text": f"{split} {'so ' * (i % 9)}{i}", "label": i % 2} for i in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)

    def made(**sections):
        document = {
            "name": "planned",
            "backbone": {"kind": "tiny", "layers": 3},
            "task": {"kind": "classification", "data_dir": str(tmp_path)},
            "method": {"name": "lora"},
            "training": {"batch_size": 8, "epochs": 1},
            "paths": {"runs": str(tmp_path / "runs")},
        }
        for name, section in sections.items():
            document[name] = {**document[name], **section} if name != "method" else section
        path = tmp_path / "run.yaml"
        path.write_text(json.dumps(document))
        return runfile.resolve(config.read(str(path), ()))

    return made


def loop_of(file):
    """Return the loop of a run, with its weights."""
    module = file.task.module
    data = module.read(file.task.config, file.paths, file.seed)
    seed = mix(file.seed, "backbone")
    backbone = file.backbone.module.load(file.backbone.config, data.problem, seed)
    task = module.bind(data, backbone, file.task.config, mix(file.seed, "task"))
    attached = attachment.attach(file, backbone, task, None, Processes())
    accelerator = devices.accelerator(file.training.precision)
    loop = build_loop(file, file.training, attached, task, backbone.head, accelerator)
    loop.model.train()
    return loop


def train(loop):
    loop.begin()
    for step in range(1, loop.num_steps + 1):
        gc.collect()
        loop.stepper.step(step, 1e-3)
        yield step


@pytest.mark.slow
def test_the_predicted_peak_is_what_torch_s_own_tracker_measures(write):
    # it hooks into every module's output, and fails where one needs no gradient: all but full
    file = write(method={"name": "full"})
    loop, tracker = loop_of(file), MemTracker()
    tracker.track_external(loop.model, loop.optimizer)
    with tracker:
        for _ in train(loop):
            tracker.reset_mod_stats()
    measured = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert forecast.plan(file)["memory"]["peak"] == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(
    ("method", "training"),
    [
        ({"name": "lora"}, {"precision": "bf16"}),
        pytest.param({"name": "full"}, {"gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"name": "jelly"}, {"micro_batch_size": 4}, marks=pytest.mark.slow),
    ],
    ids=("lora", "full", "jelly"),
)
def test_the_predicted_peak_is_that_of_the_real_run(write, method, training):
    file = write(method=method, training=training)
    loop = loop_of(file)
    with live_tensors.Live() as live:
        live.hold([*loop.model.parameters(), *frozen(loop.model)], live_tensors.WEIGHTS)
        list(train(loop))
    assert forecast.plan(file)["memory"]["peak"] == pytest.approx(live.peak.total, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_deep_model_is_told_from_two_shallow_ones_to_the_byte(write, monkeypatch, method):
    file = write(backbone={"layers": 12}, method={"name": method})
    told = forecast.plan(file)["memory"]
    monkeypatch.setattr(blocks, "depths", lambda *_: None)
    gone_through = forecast.plan(file)["memory"]
    assert told["blocks"] == [3, 4]
    assert gone_through["blocks"] == [12]
    assert told["peak"] == pytest.approx(gone_through["peak"], rel=1e-4)
    assert told["evaluation"] == pytest.approx(gone_through["evaluation"], rel=0.02)


def test_full_fine_tuning_with_adamw_holds_twelve_bytes_a_parameter_and_four_of_gradient(write):
    made = forecast.plan(write(method={"name": "full"}))
    count, parts = made["parameters"]["total"], made["memory"]["parts"]
    assert made["parameters"]["trainable"] == count
    assert parts["trained weights"] == 4 * count
    counters = parts["optimizer state"] - 8 * count  # a float32 for each tensor
    assert 0 < counters <= 4 * 100


def test_a_plan_writes_nothing_and_counts_the_steps(write, tmp_path):
    write()
    before = sorted(tmp_path.rglob("*"))
    shown = CliRunner().invoke(app, ["plan", str(tmp_path / "run.yaml"), "--json"])
    made = json.loads(shown.stdout)
    assert sorted(tmp_path.rglob("*")) == before
    assert made["training"]["steps"] == 3
    assert made["training"]["evaluations"] == 1
    assert made["data"]["examples"] == 24
    assert made["download"] == {"weights": 0, "data": 0, "notes": []}


@pytest.mark.slow
def test_a_disk_without_room_for_a_checkpoint_is_refused_and_one_that_is_tight_is_said(
    write, tmp_path, monkeypatch
):
    write()
    usage = SimpleNamespace(total=100, used=99, free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    shown = CliRunner().invoke(app, ["plan", str(tmp_path / "run.yaml")])
    assert shown.exit_code == 8
    assert "one checkpoint takes" in shown.output


@pytest.mark.slow
def test_a_longer_text_is_assumed_and_takes_more(write):
    file = write()
    short, long = (forecast.plan(file, longest=length)["memory"]["parts"] for length in (16, 64))
    # hidden states are linear in the length, attention over all pairs adds more than that
    assert long["activations"] > 3.5 * short["activations"]


@pytest.mark.slow
def test_data_that_are_not_here_leave_steps_unknown_and_the_longest_that_may_be(write):
    hub = {"path": "nobody/nothing", "name": None}
    file = write(task={"data_dir": None, "hub": hub, "labels": ["a", "b"], "max_length": 32})
    made = forecast.plan(file)
    assert made["data"]["examples"] is None
    assert made["training"]["steps"] is None
    assert made["data"]["longest"] == 32
    assert made["download"]["data"] is None
    assert made["notes"][0]["kind"] == "data_unread"


def test_each_of_four_processes_holds_a_quarter_of_what_is_shared():
    parts = dict.fromkeys(live_tensors.PARTS, 0) | {
        live_tensors.WEIGHTS: 400,
        live_tensors.GRADIENTS: 80,
        live_tensors.OPTIMIZER: 160,
        live_tensors.ACTIVATIONS: 10,
    }
    peaks = {"update": live_tensors.Peak(sum(parts.values()), parts)}
    totals = {
        kind: shards.Sharing(4, kind).peaks(peaks, largest_block=50)["update"].total
        for kind in ("whole", "zero-2", "fsdp")
    }
    assert totals == {"whole": 650, "zero-2": 400 + 20 + 40 + 10, "fsdp": 100 + 50 + 20 + 40 + 10}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fsdp", (2, "fsdp")),
        ("zero2", (2, "zero-2")),
        ("zero3", (2, "zero-3")),
        ("ddp", (2, "whole")),
    ],
)
def test_the_recipes_of_accelerate_are_understood(name, expected):
    assert tuple(shards.read(name, None)) == expected


def known(file, found, **changes):
    """Return what advice is given on, of a run that fits."""
    measured = SimpleNamespace(largest=(("embeddings", 2**20),))
    facts = advice.Known(
        file, found, SimpleNamespace(measured=measured), torch.device("cpu"), 10,
        dict.fromkeys(live_tensors.PARTS, 2**20), 100, 50,
    )  # fmt: skip
    return facts._replace(**changes)


SIZES = sizes.Sizes(100, 20, 10.0, False, 0, [2, 20] * 50, {})


@pytest.mark.parametrize(
    ("training", "changes", "kind"),
    [
        ({"learning_rate": 1e-9}, {}, "rate_lost"),
        ({"learning_rate": 1e-7, "precision": "bf16"}, {}, "rate_unseen"),
        ({}, {}, "no_gpu"),
        ({"learning_rate": 0.5}, {}, "rate_unusual"),
        ({}, {"peak": 200}, "memory_short"),
        ({}, {"peak": 95}, "memory_short"),
        ({"group_by_length": False}, {}, "padding"),
        ({"save_every": 1000}, {}, "only_at_the_end"),
        ({}, {"sizes": SIZES._replace(truncated=7)}, "examples_cut"),
    ],
)
def test_what_may_go_wrong_is_said(write, training, changes, kind):
    file = write(training=training)
    assert kind in {note.kind for note in advice.warnings(known(file, SIZES, **changes))}


def test_padding_is_the_share_of_what_goes_through_the_model(write):
    file = write(training={"group_by_length": False})
    notes = {note.kind: note for note in advice.warnings(known(file, SIZES))}
    assert notes["padding"].fields["share"] == pytest.approx(0.45)  # 2 and 20 in turn, 20 wide
    assert notes["padding"].fields["grouped"] == pytest.approx(0, abs=0.1)


def test_a_peak_that_does_not_fit_names_the_largest_tensor_and_three_ways_out(write):
    found = advice.warnings(known(write(), SIZES, peak=200))
    [note] = [note for note in found if note.kind == "memory_short"]
    assert note.fields["largest"][0] == ["embeddings", 2**20]
    assert len(note.fields["options"]) >= 3


def test_more_rows_than_become_tokens_keep_their_number_and_their_longest(
    write, monkeypatch, tmp_path
):
    monkeypatch.setattr(sizes, "ALL", 10)
    monkeypatch.setattr(sizes, "LONGEST", 3)
    monkeypatch.setattr(sizes, "SAMPLED", 6)
    file = write()
    data = sizes.read(file)
    backbone = file.backbone.module.load(file.backbone.config, data.problem, 0, meta=True)
    found = sizes.bind(file, data, backbone, None).sizes
    assert (found.examples, found.sampled, len(found.lengths)) == (24, True, 6)
    monkeypatch.undo()
    assert found.longest == sizes.bind(file, data, backbone, None).sizes.longest


def test_memory_that_is_free_is_known_here():
    assert memory.available(torch.device("cpu")) > 0
    assert memory.resident() > 2**20
