"""Two small processes that hold shards (FSDP) train, save and go on as one process does."""

import functools

import pytest
import torch
from forked import together
from plain_loops import Squares, begun, fields, train
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from graftlab.contracts import Attached, Hook
from graftlab.errors import ConfigError
from graftlab.rundir.run import Run
from graftlab.training import checkpoint
from graftlab.training.parallel import launch, request
from graftlab.weights import surgery

ROWS = 7  # shares of 4 and 3: the second process makes a pass with nothing to learn from
CONFIG = fields(
    batch_size=ROWS, micro_batch_size=1, max_steps=4, save_every=2, clip_norm=0.5,
    optimizer={"name": "adamw"},
)  # fmt: skip


class Block(GradientCheckpointingLayer):
    """What a transformer's block is for FSDP."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.inner(x)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.block, self.last = nn.Linear(2, 3), Block(), nn.Linear(3, 1)
        self.first.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        return self.last(self.block(self.first(x)))


def fsdp(processes, **settings):
    said = {k: v for k, v in {"FSDP_VERSION": "2", **settings}.items() if v is not None}
    return launch.sharding(request.Asked("fsdp", said), processes)


def zero(processes, stage):
    said = {"ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}
    return launch.sharding(request.Asked("zero", said), processes)


def parts(processes=None, way=None):
    made = Attached(Stack())
    if processes is None:
        return {"attached": made}
    processes.sharding = way(processes)
    return {"attached": made, "processes": processes}


WAYS = {
    "as one": fsdp,
    "by blocks": functools.partial(fsdp, FSDP_AUTO_WRAP_POLICY="transformer_based_wrap"),
    "by names, kept": functools.partial(
        fsdp,
        FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
        FSDP_TRANSFORMER_CLS_TO_WRAP="Block, Linear",
        FSDP_RESHARD_AFTER_FORWARD="false",
    ),
    "zero2": functools.partial(zero, stage=2),
    "zero3": functools.partial(zero, stage=3),
}


def shapes(model):
    """Return the shape of what this process holds of each weight, by FSDP."""
    return {
        n: tuple(p.to_local().shape) for n, p in model.named_parameters() if hasattr(p, "to_local")
    }


SLOW = [way for way in WAYS if way.startswith("zero")]  # seconds, most of them DeepSpeed's start


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * (way in SLOW)) for way in WAYS]
)
def test_shards_train_save_and_go_on_as_whole_weights_do(tmp_path, monkeypatch, way):
    if way in SLOW:
        monkeypatch.setenv("DS_ACCELERATOR", "cpu")
        pytest.importorskip("deepspeed")  # here, and not in each of the processes
    whole, one = train(tmp_path / "one", CONFIG, Squares(ROWS), **parts())

    def work(processes):
        loop, run = train(tmp_path / "two", CONFIG, Squares(ROWS), **parts(processes, WAYS[way]))
        shards = shapes(loop.model)
        with processes.sharding.whole(loop.model):
            own = surgery.trainable(loop.model) if processes.main else {}
            there = {name: parameter.detach().tolist() for name, parameter in own.items()}
        assert shapes(loop.model) == shards
        saved = checkpoint.load(run.checkpoints / checkpoint.name(2))
        with begun(tmp_path / "two", CONFIG, Squares(ROWS), **parts(processes, WAYS[way])) as loop:
            loop.restore(saved)
            loop.run()
            again = processes.sharding.tensors(loop.model, dict(loop.model.named_parameters()))
            moments = processes.sharding.moments(loop.optimizer)
        return shards, there, {n: t.tolist() for n, t in again.items()}, [*moments]

    (shards, there, again, names), second = together(tmp_path / "store", work)
    if shards:
        held = [found["block.inner.weight"] for found in (shards, second[0])]
        assert held == [(2, 3), (1, 3)]
    two = Run(tmp_path / "two")
    for ours, theirs in zip(two.read_metrics(), one.read_metrics(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for name, value in whole.model.named_parameters():
        torch.testing.assert_close(torch.tensor(again[name]), value.detach(), rtol=1e-5, atol=1e-6)
        if value.requires_grad:
            assert there[name] == again[name]
    assert second[2] == {}
    trained = {name for name, p in whole.model.named_parameters() if p.requires_grad}
    assert set(names) == trained
    for step in (0, 2, 4):
        ours, theirs = (
            checkpoint.load(run.checkpoints / checkpoint.name(step)).tensors for run in (two, one)
        )
        assert {g: {*t} for g, t in ours.items()} == {g: {*t} for g, t in theirs.items()}
        for group, tensors in theirs.items():
            torch.testing.assert_close(dict(ours[group]), dict(tensors), rtol=1e-5, atol=1e-6)


def test_what_hooks_may_read_and_replace_stays_whole(tmp_path):
    def work(processes):
        given = parts(processes, fsdp)
        given["attached"] = Attached(given["attached"].model, (Hook(),))
        with begun(tmp_path / "two", CONFIG, **given) as loop:
            return sorted(shapes(loop.model))

    assert together(tmp_path / "store", work) == [["first.bias", "first.weight"]] * 2


def test_blocks_that_the_model_does_not_have_are_named_with_those_it_has(tmp_path):
    def work(processes):
        settings = {
            "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "Blok",
        }  # fmt: skip
        try:
            begun(
                tmp_path / "two", CONFIG, **parts(processes, functools.partial(fsdp, **settings))
            ).__enter__()
        except ConfigError as error:
            return str(error)
        return ""

    said = together(tmp_path / "store", work)
    assert all("Blok" in text and "Block" in text for text in said)
