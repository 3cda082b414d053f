"""JELLY in stock PEFT: what its users do with any adapter, they can do with this one."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    convert_to_lora,
    get_model_status,
    get_peft_model,
    set_peft_model_state_dict,
)
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import graftlab.auto  # noqa: F401
from graftlab.methods.jelly.forms import Form
from graftlab.methods.jelly.layer import JellyLinear
from graftlab.methods.jelly.peft_config import JellyConfig
from graftlab.methods.jelly.plan import Plan
from graftlab.methods.jelly.switch import Switch
from graftlab.methods.jelly.tuner import layers

IDS = torch.arange(1, 25).reshape(3, 8)
METHODS = ("exact", "tip", "tip_preserve", "merge_reinit")
STATES = ("sequential", *METHODS, "parallel")
"""A model that has not switched, one switched by each method, and one that was parallel all along."""


def llama(dtype: torch.dtype = torch.float32, **fields: Any) -> LlamaForCausalLM:
    """Return a tiny model with grouped queries: q and o are square, k, v and the MLP are not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=48,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                attention_bias=True,
                **fields,
            )
        )
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.data.normal_(std=0.3)
    return model.to(dtype).eval()


def fill(model: nn.Module, adapter: str = "default", seed: int = 1) -> None:
    """Give every A and B values as they are after training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers(model).values():
        for tensors in (layer.jelly_A, layer.jelly_B):
            value = torch.randn(tensors[adapter].shape, generator=generator)
            tensors[adapter].data.copy_(0.3 * value)


def switch(model: Any, method: str, adapter: str = "default", step: int = 5) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    at = Switch(model, adapter, Plan(switch_method=method), 10, 5)
    at(step, torch.optim.SGD(parameters, lr=0.1))


def adapted(state: str = "sequential", base: nn.Module | None = None, **fields: Any) -> PeftModel:
    """Return an adapted model that was trained and is in one of STATES."""
    mode = "parallel" if state == "parallel" else "dynamic"
    method = state if state in METHODS else "exact"
    settings = {"r": 4, "alpha": 6, "target_modules": "all-linear", **fields}
    config = JellyConfig(mode=mode, switch_method=method, **settings)
    model = get_peft_model(llama() if base is None else base, config)
    fill(model)
    if state in METHODS:
        switch(model, state)
        fill(model, seed=2)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def modes(model: nn.Module, adapter: str = "default") -> dict[str, Form]:
    return {name.split("model.")[-1]: m.forms[adapter] for name, m in layers(model).items()}


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_only_the_adapter_trains_and_every_part_of_it_does():
    model = adapted().train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {n for n, _ in model.named_parameters() if "jelly_" in n}


@pytest.mark.quick("tip-True", "exact-False")
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_a_saved_adapter_loads_to_the_same_bits_in_the_same_modes(
    state, low_cpu_mem_usage, tmp_path
):
    model = adapted(state)
    expected = logits(model)
    folder = save(model, tmp_path)
    loaded = PeftModel.from_pretrained(llama(), folder, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded), expected)
    assert modes(loaded) == modes(model)
    step = None if state in ("sequential", "parallel") else 5
    assert loaded.peft_config["default"].switch_step == step
    again = save(loaded, tmp_path / "again")
    assert (again / "adapter_model.safetensors").read_bytes() == (
        folder / "adapter_model.safetensors"
    ).read_bytes()


@pytest.mark.quick("exact-merge_reinit", "sequential-tip*")
@pytest.mark.parametrize("file", STATES)
@pytest.mark.parametrize("state", ["sequential", "exact", "merge_reinit"])
def test_loading_on_a_name_that_is_there_restores_modes_and_tensors(state, file, tmp_path):
    there, model = adapted(file), adapted(state)
    there.peft_config["default"].switch_method = file if file in METHODS else "exact"
    expected = logits(there)
    model.load_adapter(save(there, tmp_path), "default", is_trainable=True)
    assert torch.equal(logits(model.eval()), expected)
    assert modes(model) == modes(there)
    assert model.peft_config["default"].switch_step == there.peft_config["default"].switch_step
    own = [p for n, p in model.named_parameters() if "jelly_" in n]
    assert all(p.requires_grad for p in own)


def test_a_gradient_that_is_kept_is_saved_and_goes_when_another_adapter_is_loaded(tmp_path):
    model, plain = adapted(), save(adapted(), tmp_path / "plain")
    for layer in layers(model).values():
        layer.keep_gradient("default", torch.full_like(layer.jelly_A["default"].data, 0.5))
    loaded = PeftModel.from_pretrained(llama(), save(model, tmp_path / "kept"))
    for layer in layers(loaded).values():
        assert (layer.jelly_gradient["default"] == 0.5).all()
        assert layer.jelly_gradient["default"].shape == layer.jelly_A["default"].shape
    loaded.load_adapter(plain, "default")
    assert not any("default" in layer.jelly_gradient for layer in layers(loaded).values())


def test_a_state_dict_of_the_whole_model_restores_modes_too():
    there, model = adapted("merge_reinit"), adapted()
    model.load_state_dict(there.state_dict())
    assert torch.equal(logits(model), logits(there))
    assert modes(model) == modes(there)
    back = adapted()
    model.load_state_dict(back.state_dict())
    assert torch.equal(logits(model), logits(back))


@pytest.mark.parametrize("state", STATES)
def test_a_disabled_adapter_leaves_the_bits_of_the_backbone(state):
    model, expected = adapted(state), logits(llama())
    assert not torch.allclose(logits(model), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)


def test_adapters_are_added_chosen_and_deleted_by_name(tmp_path):
    model = adapted()
    first = logits(model)
    model.add_adapter(
        "second", JellyConfig(r=2, alpha=2, target_modules=["q_proj", "v_proj"], mode="parallel")
    )
    fill_second = torch.Generator().manual_seed(3)
    for layer in layers(model).values():
        if "second" in layer.jelly_B:
            layer.jelly_B["second"].data.normal_(generator=fill_second)
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    second = logits(model)
    assert not torch.allclose(second, first)
    model.load_adapter(save(adapted("merge_reinit"), tmp_path), "third")
    model.set_adapter("third")
    assert torch.equal(logits(model), logits(adapted("merge_reinit")))
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("third")
    model.delete_adapter("second")
    for layer in layers(model).values():
        for name in (*layer.adapter_layer_names, *layer.other_param_names):
            assert set(getattr(layer, name)) <= {"default"}, name
    assert torch.equal(logits(model), first)


def test_a_sequential_and_a_parallel_adapter_act_at_once():
    model = adapted()
    model.add_adapter(
        "second", JellyConfig(r=2, alpha=2, target_modules="all-linear", mode="parallel")
    )
    fill(model, "second", seed=3)
    model.base_model.set_adapter(["default", "second"])
    plain = llama()
    with torch.no_grad():
        for name, layer in layers(model).items():
            a, b = (
                {n: t[n] for n in ("default", "second")} for t in (layer.jelly_A, layer.jelly_B)
            )
            weight = plain.get_submodule(name.removeprefix("base_model.model.")).weight
            behind = 6 / 4 * b["default"] @ a["default"] @ weight
            weight += behind + 2 / 2 * b["second"] @ a["second"]
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-4, atol=1e-5)
    merged = model.merge_and_unload(adapter_names=["default", "second"])
    torch.testing.assert_close(logits(merged), logits(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("state", STATES)
def test_merging_changes_nothing_and_leaves_a_plain_model(state):
    model = adapted(state)
    expected = logits(model)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert {type(m) for m in merged.modules()} == {type(m) for m in llama().modules()}


@pytest.mark.parametrize("state", STATES)
def test_unmerging_brings_back_every_bit(state):
    model = adapted(state)
    expected = logits(model)
    weights = {n: w.clone() for n, w in model.state_dict().items()}
    model.merge_adapter()
    merged = logits(model)
    assert not torch.equal(merged, expected)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    assert torch.equal(logits(model), expected)
    assert all(torch.equal(w, weights[n]) for n, w in model.state_dict().items())


def test_adapters_that_are_merged_one_after_the_other_both_act():
    model = adapted()
    model.add_adapter(
        "second", JellyConfig(r=2, alpha=2, target_modules="all-linear", mode="sequential")
    )
    fill(model, "second", seed=3)
    model.base_model.set_adapter(["default", "second"])
    expected = logits(model)
    model.merge_adapter(["default"])
    with pytest.warns(UserWarning, match="Already following adapters were merged default"):
        model.merge_adapter(["second"])
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("state", ["sequential", "exact"])
def test_a_safe_merge_of_what_is_not_finite_is_refused_and_changes_nothing(state):
    model = adapted(state)
    layer = next(iter(layers(model).values()))
    weight = layer.get_base_layer().weight.clone()
    layer.jelly_B["default"].data[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaNs detected in the adapter default"):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.get_base_layer().weight, weight)
    assert not layer.merged


@pytest.mark.quick("exact", "sequential")
@pytest.mark.parametrize("state", STATES)
def test_it_converts_to_lora(state):
    model = adapted(state)
    rank = 8 if state == "merge_reinit" else 4
    config, weights = convert_to_lora(model, rank=rank)
    assert isinstance(config, LoraConfig)
    lora = get_peft_model(llama(), config)
    result = set_peft_model_state_dict(lora, weights)
    assert not result.unexpected_keys
    torch.testing.assert_close(logits(lora.eval()), logits(model), rtol=1e-3, atol=1e-4)


def test_peft_reports_its_status():
    status = get_model_status(adapted("merge_reinit"))
    assert status.peft_types == {"default": "JELLY"}
    assert status.num_adapter_layers == 14
    assert status.active_adapters == ["default"]
    assert status.merged_adapters == []
    assert status.devices == {"default": ["cpu"]}
    pairs = 2 * sum(4 * (m.in_features + m.out_features) for m in layers(adapted()).values())
    assert status.trainable_params == pairs / 2  # the frozen pair does not train


def test_a_batch_of_several_adapters_is_refused():
    with pytest.raises(ValueError, match=r"JELLY.*adapters"):
        adapted()(input_ids=IDS, adapter_names=["default", "__base__", "default"])


@pytest.mark.parametrize("state", ["sequential", "tip_preserve", "parallel"])
def test_rank_and_alpha_may_differ_by_layer(state, tmp_path):
    model = adapted(state, rank_pattern={"q_proj": 2}, alpha_pattern={"0.self_attn.v_proj": 12})
    found = {n.removeprefix("base_model.model.model.layers."): m for n, m in layers(model).items()}
    assert {m.r["default"] for n, m in found.items() if n.endswith("q_proj")} == {2}
    assert found["0.self_attn.v_proj"].scaling == {"default": 12 / 4}
    assert found["1.self_attn.v_proj"].scaling == {"default": 6 / 4}
    loaded = PeftModel.from_pretrained(llama(), save(model, tmp_path))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.quick("exact", "tip")
@pytest.mark.parametrize("state", STATES)
def test_layers_that_store_their_weight_the_other_way_round(state, tmp_path):
    def gpt2() -> GPT2LMHeadModel:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = GPT2Config(vocab_size=48, n_positions=16, n_embd=16, n_layer=1, n_head=2)
            model = GPT2LMHeadModel(config)
            for name, parameter in model.named_parameters():
                if name.endswith(".bias"):
                    parameter.data.normal_(std=0.3)
        return model.eval()

    model = adapted(state, gpt2(), target_modules=["c_attn", "c_proj", "c_fc"])
    expected = logits(model)
    loaded = PeftModel.from_pretrained(gpt2(), save(model, tmp_path))
    assert torch.equal(logits(loaded), expected)
    if state == "sequential":
        plain = gpt2()
        with torch.no_grad():
            for name, layer in layers(model).items():
                weight = plain.get_submodule(name.removeprefix("base_model.model.")).weight
                a, b = layer.jelly_A["default"], layer.jelly_B["default"]
                weight += (6 / 4 * b @ a @ weight.T).T
        torch.testing.assert_close(expected, logits(plain), rtol=1e-4, atol=1e-5)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(gpt2()))
    torch.testing.assert_close(logits(model.merge_and_unload()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.quick("exact")
@pytest.mark.parametrize("state", STATES)
def test_transformers_own_adapter_functions_take_it(state, tmp_path):
    expected = logits(adapted(state))
    folder = save(adapted(state), tmp_path / "by_peft")
    model = llama()
    model.load_adapter(str(folder))
    assert torch.equal(logits(model), expected)
    assert modes(model) == modes(adapted(state))
    again = save(model, tmp_path / "by_transformers")
    loaded = llama()
    loaded.load_adapter(str(again))
    assert torch.equal(logits(loaded), expected)
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), again)), expected)
    model.disable_adapters()
    assert torch.equal(logits(model), logits(llama()))


def test_transformers_own_add_adapter_starts_one():
    model = llama()
    model.add_adapter(JellyConfig(r=4, target_modules="all-linear"))
    assert torch.equal(logits(model), logits(llama()))
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert any(layer.jelly_B["default"].grad.any() for layer in layers(model).values())


@pytest.mark.quick("exact")
@pytest.mark.parametrize("state", STATES)
def test_on_a_bfloat16_backbone_the_adapter_is_float32(state, tmp_path):
    model = adapted(state, llama(torch.bfloat16))
    own = {n: t for n, t in model.state_dict().items() if "jelly_" in n and "jelly_form" not in n}
    assert {t.dtype for t in own.values()} == {torch.float32}
    output = model(input_ids=IDS, labels=IDS)
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    loaded = PeftModel.from_pretrained(llama(torch.bfloat16), save(model, tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    assert {n: t.dtype for n, t in loaded.state_dict().items()} == {
        n: t.dtype for n, t in model.state_dict().items()
    }


def gradients(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("state", ["sequential", "merge_reinit"])
def test_gradient_checkpointing_changes_no_gradient(state, use_reentrant):
    model = adapted(state).train()
    expected = gradients(model)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    found = gradients(model)
    assert {n for n, g in found.items() if not torch.equal(g, expected[n])} == set()


@pytest.mark.parametrize("state", ["sequential", "merge_reinit", "parallel"])
def test_under_autocast_a_layer_is_that_of_float32_to_bfloat16s_precision(state):
    layer = layers(adapted(state))["base_model.model.model.layers.0.self_attn.k_proj"]
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def results() -> dict[str, Tensor]:
        layer.zero_grad()
        x.grad = None
        output = layer(x)
        (output.float() ** 2).sum().backward()
        own = {n: p.grad.clone() for n, p in layer.named_parameters() if p.requires_grad}
        return {"output": output.detach(), "x": x.grad.clone(), **own}

    expected = results()
    with torch.autocast("cpu", torch.bfloat16):
        found = results()
    assert found["output"].dtype == torch.bfloat16
    for name, value in found.items():
        if name != "output":
            assert value.dtype == torch.float32
        # bfloat16 rounds to 2^-9; a gradient has gone through five products
        assert (value - expected[name]).norm() < 0.02 * expected[name].norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("state", ["sequential", "merge_reinit"])
def test_a_compiled_layer_is_one_graph_with_the_same_outputs_and_gradients(state):
    layer = layers(adapted(state))["base_model.model.model.layers.0.self_attn.k_proj"]
    # without a C++ compiler: the graph is traced and differentiated, and runs as it is
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def results(forward: nn.Module) -> dict[str, Tensor]:
        layer.zero_grad()
        x.grad = None
        output = forward(x)
        (output**2).sum().backward()
        own = {n: p.grad.clone() for n, p in layer.named_parameters() if p.requires_grad}
        return {"output": output.detach(), "x": x.grad.clone(), **own}

    expected = results(layer)
    for name, value in results(compiled).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_a_hook_on_the_base_layer_is_called_and_may_change_its_output():
    model = adapted()
    layer: JellyLinear = next(iter(layers(model).values()))
    x = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(0))
    before, seen = layer(x), []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output)

    handle = layer.base_layer.register_forward_hook(record)
    torch.testing.assert_close(layer(x), before)
    assert len(seen) == 1
    handle.remove()

    def erase(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * 0

    layer.base_layer.register_forward_hook(erase)
    bias = layer.base_layer.bias
    a, b = layer.jelly_A["default"], layer.jelly_B["default"]
    torch.testing.assert_close(layer(x), 6 / 4 * (-bias @ a.T @ b.T).expand(2, -1))


def test_a_bias_that_somebody_trains_has_its_gradient():
    layer: JellyLinear = next(iter(layers(adapted()).values()))
    bias = layer.get_base_layer().bias.requires_grad_()
    a, b = layer.jelly_A["default"], layer.jelly_B["default"]
    x = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(0))
    layer(x).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full_like(bias, 2))
    assert a.grad.any()
    assert b.grad.any()


def test_a_new_a_is_where_the_old_one_was():
    layer = layers(adapted())["base_model.model.model.layers.0.self_attn.k_proj"].to("meta")
    layer.replace_A("default", torch.zeros(4, 16, dtype=torch.float64))
    a = layer.jelly_A["default"]
    assert (a.shape, a.device.type, a.dtype) == ((4, 16), "meta", torch.float32)


def test_what_cannot_be_read_is_refused():
    config = JellyConfig(target_modules=["embed_tokens"])
    with pytest.raises(ValueError, match=r"embed_tokens is a Embedding"):
        get_peft_model(llama(), config)
    with pytest.raises(ValueError, match=r"k_proj.*square \(16 to 8\)"):
        get_peft_model(llama(), JellyConfig(target_modules=["k_proj"], nonsquare="error"))


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_random_start_as_pefts_own_tests_want_it_changes_the_outputs(mode):
    base = llama()
    model = get_peft_model(llama(), JellyConfig(r=4, mode=mode, init_weights=False))
    with torch.no_grad():
        assert not torch.allclose(model(IDS).logits, base(IDS).logits)
