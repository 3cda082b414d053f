"""Gradients of analyses: by autograd done by hand, closed forms of their figures, and models of peft."""

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from graftlab.analyses import gradients
from graftlab.analyses.gradients import TRAINABLE, WEIGHT, Sums, kind_of
from graftlab.contracts import Asked, Differentiable
from graftlab.testing.analyses import NOTHING, PLANTED, SEVERAL


def model_of_two():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


X = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def adapted():
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"], init_lora_weights=False)
    return get_peft_model(model_of_two(), config).double().eval()


def test_a_merged_weights_gradient_is_that_of_autograd_on_the_merged_model():
    """dL/dW of W + s B A, with tokens in two dimensions, against the model with W + s B A as its weight."""
    model = adapted()
    found = gradients.gradients(Differentiable(model, lambda: model(X).square().sum(), "x"))[1]
    merged = adapted().merge_and_unload()
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    merged(X).square().sum().backward()
    assert set(found[WEIGHT]) == {"0.weight", "2.weight"}
    for name in ("0", "2"):
        expected = merged.get_submodule(name).weight.grad
        sums = found[WEIGHT][f"{name}.weight"]
        assert sums.figures().norm == pytest.approx(float(expected.norm()))
        assert sums.figures().mean == pytest.approx(float(expected.abs().mean()))
        assert sums.figures().std == pytest.approx(float(expected.std(correction=0)))


def test_factors_gradients_follow_from_that_of_the_whole():
    """dL/dB = s G A^T and dL/dA = s B^T G."""
    model = adapted()
    found = gradients.gradients(Differentiable(model, lambda: model(X).square().sum(), "x"))[1]
    layer = model.base_model.model[0]
    merged = adapted().merge_and_unload()
    merged.requires_grad_(True)
    merged(X).square().sum().backward()
    whole = merged[0].weight.grad
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    for key, expected in (("lora_B", 3 * whole @ a.T), ("lora_A", 3 * b.T @ whole)):
        norm = found[TRAINABLE][f"0.{key}.weight"].figures().norm
        assert norm == pytest.approx(float(expected.norm()))


def test_a_plain_models_two_modes_are_one_and_nothing_is_held_afterwards():
    model = model_of_two()
    before = [p.clone() for p in model.parameters()]
    loss, found = gradients.gradients(Differentiable(model, lambda: model(X).mean(), "x"))
    assert loss == pytest.approx(float(model(X).mean()))
    assert found[TRAINABLE] == found[WEIGHT]
    assert all(p.grad is None for p in model.parameters())
    assert all(a.equal(b) for a, b in zip(before, model.parameters(), strict=True))
    assert not model[0]._forward_hooks
    assert not model[0]._backward_hooks


def test_a_layer_that_is_passed_twice_has_the_sum_of_both():
    model = adapted()
    layer = model.base_model.model[2]

    def loss():
        hidden = torch.tanh(model.base_model.model[0](X))
        return layer(hidden).sum() + layer(2 * hidden).square().sum()

    found = gradients.gradients(Differentiable(model, loss, "x"))[1][WEIGHT]["2.weight"]
    with torch.no_grad():
        hidden = torch.tanh(model.base_model.model[0](X)).reshape(-1, 5)
        ones = torch.ones(len(hidden), 3, dtype=torch.float64)
        expected = ones.T @ hidden + (2 * layer(2 * hidden)).T @ (2 * hidden)
    assert found.figures().norm == pytest.approx(float(expected.norm()))


def test_figures_of_planted_values_and_of_several_together():
    first, second = torch.tensor([3.0, -4.0, 0.0]), torch.tensor([1e-9, 2.0])
    found = (Sums.of(first) + Sums.of(second)).figures()
    values = np.array([3, -4, 0, 1e-9, 2])
    assert found.mean == pytest.approx(np.abs(values).mean())
    assert found.std == pytest.approx(values.std())
    assert found.norm == pytest.approx(math.sqrt(29))
    assert (found.zeros, found.near) == (0.2, 0.4)
    assert set(Sums().figures()) == {None}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.input_layernorm.weight", "norm"),
        ("model.layers.0.post_attention_layernorm.weight", "norm"),
        ("encoder.layer.1.attention.output.LayerNorm.weight", "norm"),
        ("model.layers.3.self_attn.q_proj.lora_A.weight", "attention"),
        ("encoder.layer.1.attention.self.query.weight", "attention"),
        ("transformer.h.0.attn.c_attn.weight", "attention"),
        ("model.layers.3.mlp.gate_proj.weight", "mlp"),
        ("encoder.layer.1.intermediate.dense.weight", "mlp"),
        ("model.embed_tokens.weight", "embed"),
        ("transformer.wte.weight", "embed"),
        ("lm_head.weight", "head"),
        ("score.weight", "head"),
        ("classifier.bias", "head"),
        ("model.norm.weight", "norm"),
        ("transformer.ln_f.weight", "norm"),
        ("strange.weight", "other"),
    ],
)
def test_a_weights_kind_is_read_from_its_name(name, kind):
    assert kind_of(name) == kind


def test_a_model_without_a_loss_has_a_line_that_says_so_and_the_rest_goes_on():
    lines = list(gradients.rows([PLANTED, NOTHING, *SEVERAL[1:]], Asked()))
    assert lines[0].note == "there is no model"
    assert {line.checkpoint for line in lines[1:]} == {5, 10}
    for step in (5, 10):
        own = [line for line in lines if line.checkpoint == step and line.mode == TRAINABLE]
        *parts, whole = own
        assert whole.layer_type == "global"
        assert whole.norm == pytest.approx(math.sqrt(sum(line.norm**2 for line in parts)))
        assert whole.numel == sum(line.numel for line in parts)
