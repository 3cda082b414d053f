"""Which weights move, and how fast: one step of SGD, by hand."""

import pytest
import torch
from plain_loops import RATE, Squares, begun, fields, train
from torch import nn

from graftlab.contracts import Attached, Hook


class Net(nn.Module):
    """A body, a head as PEFT wraps it, and a part that is called nearly as the head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.body, self.overhead = nn.Linear(2, 2), nn.Linear(2, 2)
        self.head = nn.ModuleDict({"saved": nn.Linear(2, 1)})
        self.late = nn.Linear(2, 1)
        self.late.requires_grad_(False)
        self.register_buffer("told", torch.zeros(2))

    def forward(self, x):
        made = self.overhead(self.body(x))
        return self.head["saved"](made) + self.late(made)


def stepped(net, rows, rate, decay=0.0):
    """Take a step of SGD at each weight's own rate, those that train alone."""
    net.zero_grad()
    net(rows).square().mean().backward()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.requires_grad:
                p -= rate(name) * (p.grad + (decay * p if p.ndim > 1 else 0.0))


def check(net, expected):
    torch.testing.assert_close(net.state_dict(), expected.state_dict())


def test_each_weight_moves_at_the_rate_of_its_part_and_matrices_decay(tmp_path):
    config = fields(
        max_steps=1, head_learning_rate=RATE / 4,
        optimizer={"name": "sgd", "weight_decay": 0.5},
    )  # fmt: skip
    made = Attached(Net(), rates={"body.weight": 3.0, "head.saved.bias": 9.0})
    loop, _ = train(tmp_path / "run", config, attached=made, head=("head",))
    expected = Net()

    def rate(name):
        if name.startswith("head."):
            return RATE / 4  # also where a method has said another
        return RATE * 3 if name == "body.weight" else RATE

    stepped(expected, loop.parts.task.data[loop.order.batch(1)], rate, 0.5)
    check(made.model, expected)
    plain = Attached(Net())
    train(tmp_path / "plain", fields(max_steps=1), attached=plain, head=("head",))
    expected = Net()
    stepped(expected, loop.parts.task.data[loop.order.batch(1)], lambda _: RATE)
    check(plain.model, expected)


class Switch(Hook):
    """After the first step, what was frozen trains, and the body does no more."""

    def on_train_start(self, training):
        self.training = training

    def after_optimizer_step(self, step):
        model = self.training.model
        if step == 1:
            model.body.requires_grad_(False)
            model.late.requires_grad_(True)
            self.training.parameters_changed()
        return {}


@pytest.mark.parametrize("compiled", [False, True])
def test_what_a_hook_makes_trainable_moves_from_the_next_step_on(tmp_path, monkeypatch, compiled):
    given, passed = [], []

    def compile_(model):
        given.append(model)

        def forward(*arguments):
            passed.append(len(given))
            return model(*arguments)

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    config = fields(max_steps=2, compile=compiled)
    made = Attached(Net().eval(), (Switch(),))
    loop, _ = train(tmp_path / "run", config, attached=made)
    assert made.model.training
    assert given == [made.model, made.model] * compiled  # again, as its graph is another
    assert passed == [1, 2] * compiled
    expected, data = Net(), loop.parts.task.data
    stepped(expected, data[loop.order.batch(1)], lambda _: RATE)
    expected.body.requires_grad_(False)
    expected.late.requires_grad_(True)
    stepped(expected, data[loop.order.batch(2)], lambda _: RATE)
    check(made.model, expected)


def test_label_smoothing_is_the_tasks_in_training_and_not_in_a_probe(tmp_path):
    class Told(Squares):
        def loss(self, model, batch, label_smoothing=0.0):
            self.told.append(label_smoothing)
            return super().loss(model, batch)

    class Asking(Hook):
        def on_train_start(self, training):
            self.training = training

        def after_optimizer_step(self, step):
            self.training.probe()
            return {}

    task = Told()
    task.told = []
    with begun(
        tmp_path / "run", fields(max_steps=1, label_smoothing=0.25), task, (Asking(),)
    ) as loop:
        loop.run()
    assert task.told == [0.25, 0.0]
