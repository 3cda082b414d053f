"""Every optimizer of torch by name; matrices decay and vectors do not; states come back exactly."""

import inspect

import pytest
import torch
from torch import nn

from graftlab.errors import ConfigError
from graftlab.training import checkpoint, optimizer
from graftlab.training.optimizer import TORCH, Config

# What graftlab/training/optimizer.py says it leaves out, and why.
NOT_OFFERED = {"LBFGS", "Muon", "SparseAdam", "Optimizer"}


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 80), nn.LayerNorm(80), nn.Linear(80, 80), nn.Linear(80, 80, bias=False)
    )


def made(net, config=None, rates=None):
    config = config or Config()
    parameters = dict(net.named_parameters())
    return optimizer.build(optimizer.groups(parameters, config, rates or {}), config)


def train(net, optimizing, steps, first=0):
    for step in range(first, first + steps):
        torch.manual_seed(step)
        for group in optimizing.param_groups:
            group["lr"] = 0.01
        net(torch.randn(4, 8)).square().mean().backward()
        optimizing.step()
        optimizing.zero_grad()


def test_the_names_are_all_that_torch_offers():
    offered = {
        name
        for name, found in vars(torch.optim).items()
        if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)
    }
    assert set(TORCH.values()) == offered - NOT_OFFERED
    assert all(name == TORCH[name].lower() for name in TORCH)


@pytest.mark.parametrize("name", [*TORCH, "adamw_8bit"])
def test_a_restored_optimizer_goes_on_to_the_bit(name, tmp_path):
    config = Config(name=name, arguments={"momentum": 0.9} if name == "sgd" else {})
    straight = model()
    first = made(straight, config)
    train(straight, first, 3)
    tensors = {}
    state = checkpoint.pack(optimizer.state(first), tensors)
    weights = {n: p.detach().clone() for n, p in straight.named_parameters()}
    checkpoint.save(tmp_path, 3, {"trainable": weights, "optimizer": tensors}, {"optimizer": state})

    saved = checkpoint.load(tmp_path / checkpoint.name(3))
    resumed = model()
    resumed.load_state_dict(saved.tensors["trainable"])
    second = made(resumed, config)
    moments = checkpoint.unpack(saved.state["optimizer"], saved.tensors["optimizer"])
    optimizer.load_state(second, moments)
    train(straight, first, 3, first=3)
    train(resumed, second, 3, first=3)
    for name_of, expected in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name_of], expected, rtol=0, atol=0)
    assert any(
        not torch.equal(straight.state_dict()[name_of], weights[name_of]) for name_of in weights
    )


def test_eight_bit_states_take_a_byte_a_value():
    net = model()
    optimizing = made(net, Config(name="adamw_8bit"))
    train(net, optimizing, 1)
    state = optimizer.state(optimizing)["2.weight"]  # 6400 values; below 4096 it stays float32
    assert state["state1"].dtype == torch.uint8


def test_matrices_decay_and_vectors_do_not():
    groups = optimizer.groups(dict(model().named_parameters()), Config(weight_decay=0.1), {})
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.1, "2.bias": 0.0,
        "3.weight": 0.1,
    }  # fmt: skip


def test_each_learning_rate_has_its_own_groups():
    groups = optimizer.groups(dict(model().named_parameters()), Config(), {"0.weight": 16.0})
    assert [(group["rate"], group["names"]) for group in groups] == [
        (16.0, ["0.weight"]),
        (1.0, ["0.bias", "1.weight", "1.bias", "2.weight", "2.bias", "3.weight"]),
    ]


def test_arguments_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"momentun.*do not fit SGD"):
        made(model(), Config(name="sgd", arguments={"momentun": 0.9}))


def test_an_unknown_optimizer_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'adamw'"):
        Config(name="adanw")
