"""JELLY on quantized layers (bitsandbytes, on the CPU)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

import graftlab.auto  # noqa: F401
from graftlab.methods.jelly.peft_config import JellyConfig
from graftlab.methods.jelly.plan import Plan
from graftlab.methods.jelly.switch import Switch
from graftlab.methods.jelly.tuner import layers

bnb = pytest.importorskip("bitsandbytes")

KINDS = ("nf4", "int8")
KEEPING = ("exact", "tip_preserve", "merge_reinit")
X = torch.randn(7, 64, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Sequential:
    """Return three layers: square, wide and square, narrow; with biases."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sides = [(64, 64), (64, 128), (128, 64)]
        layers = [nn.Linear(*side) for side in sides]
        for layer in layers:
            layer.bias.data.normal_(std=0.5)
        return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def quantized(kind: str, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    model = plain()
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.Linear):
            setattr(model, name, quantize(layer, kind, dtype))
    return model


def quantize(layer: nn.Linear, kind: str, dtype: torch.dtype) -> nn.Module:
    sides = (layer.in_features, layer.out_features)
    if kind == "nf4":
        new = bnb.nn.Linear4bit(*sides, compute_dtype=dtype, quant_type="nf4")
    else:
        new = bnb.nn.Linear8bitLt(*sides, has_fp16_weights=False)
    new.load_state_dict(layer.state_dict())
    return new.to("cpu")


def dequantized(kind: str) -> nn.Sequential:
    """Return plain layers with the weights that bitsandbytes itself reads out of the quantized ones."""
    model = plain()
    for mine, theirs in zip(model, quantized(kind), strict=True):
        if isinstance(mine, nn.Linear):
            weight: Any = theirs.weight
            if kind == "nf4":
                read = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
            else:
                read = bnb.functional.int8_vectorwise_dequant(weight.data, weight.SCB)
            mine.weight.data = read.float()
    return model


def adapted(base: nn.Module, mode: str = "dynamic", method: str = "exact") -> PeftModel:
    config = JellyConfig(
        r=4, alpha=6, target_modules=["0", "2", "4"], mode=mode, switch_method=method
    )
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(1)
    for layer in layers(model).values():
        for tensors in (layer.jelly_A, layer.jelly_B):
            tensors["default"].data.normal_(generator=generator).mul_(0.2)
    return model


def switch(model: PeftModel, method: str) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    at = Switch(model, "default", Plan(switch_method=method), 10, 5)
    at(5, torch.optim.SGD(parameters, lr=0.1))


def outputs(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.no_grad():
        return model(X.to(dtype))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if "weight" in n}


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_the_dequantized_layers(kind, mode):
    results = []
    for base in (quantized(kind), dequantized(kind)):
        model = adapted(base, mode)
        inputs = X.clone().requires_grad_()
        output = model(inputs)
        (output**2).sum().backward()
        trained = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append({"output": output.detach(), "x": inputs.grad, **trained})
    assert len(results[0]) == 2 + 6
    for name, expected in results[1].items():
        torch.testing.assert_close(results[0][name], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", KEEPING)
@pytest.mark.parametrize("kind", KINDS)
def test_a_switch_leaves_float32_outputs_unchanged(kind, method):
    # measured: at most 5e-7 with outputs up to 2.1. In training mode, since in eval mode int8 layers
    # round their inputs too (below)
    model = adapted(quantized(kind), "dynamic", method).train()
    before = outputs(model)
    switch(model, method)
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=5e-6)


@pytest.mark.parametrize("method", KEEPING)
@pytest.mark.parametrize("kind", KINDS)
def test_a_switch_leaves_bfloat16_outputs_unchanged_but_for_their_rounding(kind, method):
    # measured: 0.0156, one unit in the last place of outputs up to 2.1
    model = adapted(quantized(kind, torch.bfloat16), "dynamic", method).train()
    before = outputs(model, torch.bfloat16)
    switch(model, method)
    after = outputs(model, torch.bfloat16)
    ulp = 2 * torch.finfo(torch.bfloat16).eps
    assert (after - before).abs().max() <= ulp * before.abs().max().log2().floor().exp2()


@pytest.mark.parametrize("method", KEEPING)
def test_in_eval_mode_int8_outputs_move_by_less_than_int8_is_off_itself(method):
    # measured: 0.0102 against 0.0122. Sequential, the adapter reads a product of rounded inputs
    model = adapted(quantized("int8"), "dynamic", method).eval()
    off = (outputs(model) - outputs(adapted(dequantized("int8")).eval())).abs().max()
    before = outputs(model)
    switch(model, method)
    assert 0 < (outputs(model) - before).abs().max() < off


@pytest.mark.parametrize("kind", KINDS)
def test_tip_brings_back_the_backbone(kind):
    model = adapted(quantized(kind), "dynamic", "tip").train()
    switch(model, "tip")
    assert torch.equal(outputs(model), outputs(quantized(kind).train()))


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_quantizes_the_changed_weight_and_unmerging_brings_back_every_bit(kind, mode):
    model = adapted(quantized(kind), mode).train()
    expected, before = outputs(model), weights(model)
    changed = adapted(dequantized(kind), mode).merge_and_unload()
    for name, layer in list(changed.named_children()):
        if isinstance(layer, nn.Linear):
            setattr(changed, name, quantize(layer, kind, torch.float32))
    with pytest.warns(UserWarning, match="is rounded anew"):
        model.merge_adapter()
    merged = outputs(model)
    torch.testing.assert_close(merged, outputs(changed.train()), rtol=1e-5, atol=1e-5)
    assert not torch.equal(merged, expected)
    model.unmerge_adapter()
    assert torch.equal(outputs(model), expected)
    after = weights(model.to("cpu"))  # moves 4-bit weights that are not quantized yet
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert torch.equal(outputs(model), expected)
    with model.disable_adapter():
        assert torch.equal(outputs(model), outputs(quantized(kind).train()))


@pytest.mark.filterwarnings("ignore:a bnb .* is rounded anew")
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_layer_still_knows_its_change(kind):
    model = adapted(quantized(kind), "sequential")
    layer = layers(model)["base_model.model.2"]
    expected = layer.get_delta_weight("default")
    layer.merge()
    assert torch.equal(layer.get_delta_weight("default"), expected)


@pytest.mark.filterwarnings("ignore:a bnb .* is rounded anew")
@pytest.mark.parametrize("kind", KINDS)
def test_merge_and_unload_leaves_quantized_layers(kind):
    model = adapted(quantized(kind)).train()
    merged = model.merge_and_unload()
    assert {type(m) for m in merged} == {type(m) for m in quantized(kind)}


@pytest.mark.parametrize("method", ["exact", "merge_reinit"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_loads_to_the_same_bits(kind, method, tmp_path: Path):
    model = adapted(quantized(kind), "dynamic", method).train()
    for stage in ("sequential", "switched"):
        model.save_pretrained(tmp_path / stage)
        loaded = PeftModel.from_pretrained(quantized(kind), tmp_path / stage).train()
        assert torch.equal(outputs(loaded), outputs(model))
        if stage == "sequential":
            switch(model, method)


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_between_two_steps_changes_no_gradient(kind):
    model = adapted(quantized(kind))

    def gradients() -> dict[str, Tensor]:
        model.train().zero_grad()
        (model(X) ** 2).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    model.eval()
    outputs(model)
    found = gradients()
    assert all(torch.equal(found[n], expected[n]) for n in expected)


def test_weights_packed_for_inference_are_refused():
    base = quantized("nf4").requires_grad_(False)
    if not getattr(base[0], "support_avx512bf16_for_cpu", False):
        pytest.skip("bitsandbytes packs no weights on this CPU")
    outputs(base.eval())
    with pytest.raises(ValueError, match="model's 4-bit"):
        adapted(base)
