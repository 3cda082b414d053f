"""A backbone in 4 or 8 bits: what is quantized, that it trains, resumes exactly, and what is refused."""

import importlib.util
import json
import logging

import pytest
import torch
import transformers
from faults import fault

from graftlab import config, inference, runfile
from graftlab.backbones import _quantization, decoder, tiny
from graftlab.config import merge
from graftlab.contracts import Problem
from graftlab.errors import GraftlabError, ModelError
from graftlab.rundir.run import Run
from graftlab.runs import prediction, session
from graftlab.testing import examples, resume, rig
from graftlab.weights import quantized

bnb = pytest.importorskip("bitsandbytes")

CLASSES = Problem("classes", ("bad", "good"))
TOKENS = Problem("tokens")
BITS = {
    "nf4": {"bits": 4, "compute_dtype": "float32"},
    "fp4": {"bits": 4, "type": "fp4", "double": False, "compute_dtype": "float32"},
    "int8": {"bits": 8},
}
IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
every = pytest.mark.parametrize("kind", BITS)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return examples.text_model(tmp_path_factory.mktemp("llama"), "decoder")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Save a GPT-2, whose linear layers keep their weights the other way round and have biases."""
    folder = tmp_path_factory.mktemp("gpt2")
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48, "vocab_size": 261}
    torch.manual_seed(0)
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    ends = {"bos_token_id": 2, "eos_token_id": 3}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **still, **ends))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tiny.load(tiny.Config(max_length=48), TOKENS, seed=0).processor.save_pretrained(folder)
    return str(folder)


def load(model, kind="nf4", problem=TOKENS, meta=False, **fields):
    section = decoder.Config(model=model, quantization=BITS[kind], **fields)
    return decoder.load(section, problem, 0, meta)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@every
def test_it_computes_as_transformers_own_model_in_as_many_bits(llama, kind):
    section = BITS[kind]
    known = {"load_in_8bit": True} if kind == "int8" else {
        "load_in_4bit": True, "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": section.get("double", True),
        "bnb_4bit_compute_dtype": torch.float32,
    }  # fmt: skip
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        llama, quantization_config=transformers.BitsAndBytesConfig(**known), dtype="float32"
    )
    model = load(llama, kind).model
    # theirs packs its 4-bit weights for inference, which rounds otherwise; in training mode it does not
    torch.testing.assert_close(
        model.train()(IDS).logits, theirs.train()(IDS).logits, rtol=0, atol=0
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(llama)
    assert 0 < (logits(model) - logits(plain)).abs().max() < 0.5


@pytest.mark.parametrize("problem", [CLASSES, TOKENS], ids=lambda p: p.kind)
def test_all_linear_layers_are_quantized_but_those_that_put_out(llama, problem):
    backbone = load(llama, problem=problem)
    plain = decoder.load(decoder.Config(model=llama), problem, 0)
    names = {n for n, m in plain.model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert names - {"score", "lm_head"} == set(quantized.layers(backbone.model))
    assert backbone.head == plain.head
    for name in backbone.head:
        assert torch.equal(
            backbone.model.get_submodule(name).weight, plain.model.get_submodule(name).weight
        )


@every
def test_the_record_counts_the_bytes(llama, kind):
    found = load(llama, kind).record["quantization"]
    plain = decoder.load(decoder.Config(model=llama), TOKENS, 0).model
    weights = [m.weight for n, m in plain.named_modules() if n.endswith("_proj")]
    scales = {
        "int8": [4 * len(w) for w in weights],
        "fp4": [4 * w.numel() // 64 for w in weights],
        "nf4": [w.numel() // 64 + 4 for w in weights],  # a byte each, and a float32 for 256 of them
    }[kind]
    size = sum(w.numel() for w in weights) * BITS[kind]["bits"] // 8
    assert (found["layers"], found["bytes"]) == (14, size + sum(scales))
    assert load(llama, kind, meta=True).record["quantization"] == found


def test_the_rest_keeps_its_number_format_and_norms_compute_in_float32(llama):
    model = load(llama, dtype="bfloat16").model
    seen = {}
    for name, module in model.named_modules():
        if name in ("model.norm", "model.layers.0.mlp", "lm_head"):
            module.register_forward_hook(lambda *a, name=name: seen.update({name: a[-1].dtype}))
    expected = logits(load(llama).model)
    torch.testing.assert_close(logits(model).float(), expected, rtol=0.1, atol=0.05)
    assert set(seen.values()) == {torch.bfloat16}
    assert model.model.norm.weight.dtype == torch.float32
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16


@every
def test_planned_bytes_are_the_real_ones_where_layers_lie_the_other_way_round(gpt2, kind):
    assert load(gpt2, kind, meta=True).record == load(gpt2, kind).record | {"sha256": {}}


@every
def test_what_it_is_read_as_is_what_it_computes_with(gpt2, kind):
    model = load(gpt2, kind).model
    before = model.train()(IDS).logits
    quantized.dequantize(model)
    assert not quantized.layers(model)
    assert type(model.transformer.h[0].attn.c_attn).__name__ == "Conv1D"
    torch.testing.assert_close(model.eval()(IDS).logits, before, rtol=1e-4, atol=1e-4)
    assert "quantization_config" not in model.config.to_dict()
    model.float()  # of a model in few bits transformers refuses this


def test_checkpointing_gradients_and_evaluating_between_steps_change_no_gradient(llama):
    from graftlab.methods import lora

    found = []
    for checkpointing, evaluating in ((False, False), (True, False), (False, True)):
        backbone = load(llama, problem=CLASSES)
        if checkpointing:
            options = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
            backbone.model.gradient_checkpointing_enable(**options)
        setting = rig.setting(rig.FAMILIES["decoder"])
        model = lora.attach(backbone, lora.Config(init="gaussian"), setting).model
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.ones_(parameter)
        if evaluating:
            logits(model)
        model.train()(input_ids=IDS).logits.pow(2).sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert all(gradient is not None for gradient in found[0].values())
    for other in found[1:]:
        for name, gradient in found[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6)


def test_on_the_meta_device_it_is_built_without_weights_and_before_it_is_quantized(llama):
    model = load(llama, meta=True).model
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert not quantized.layers(model)


def run_file(folder, llama, quantization, method):
    given = resume.run_file(folder, {"method": {"name": "lora"}}).resolved
    backbone = {"kind": "decoder", "model": llama, "quantization": quantization}
    values = {**given, "backbone": backbone, "method": method}
    path = folder / "quantized.yaml"
    path.write_text(config.dump(values), encoding="utf-8")
    return runfile.resolve(config.read(path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_run_that_was_killed_ends_with_the_same_bytes_and_is_evaluated_as_it_was(
    llama, kind, tmp_path
):
    file = run_file(tmp_path, llama, BITS[kind], {"name": "lora", "rank": 2})
    whole = session.run(file, tmp_path / "whole", options=resume.OPTIONS)
    path = tmp_path / "killed"
    assert resume.killed_after(7, lambda: session.run(file, path, options=resume.OPTIONS))
    assert resume.in_child(lambda: session.resume(path, resume.OPTIONS)) == 0
    assert resume.outcome(Run(path)) == resume.outcome(whole)
    record = json.loads(whole.environment.read_text())["backbone"]
    assert record["quantization"]["bits"] == BITS[kind]["bits"]
    assert record["sha256"]
    total = whole.read_result()["parameters"]["total"]
    assert total == sum(p.numel() for p in decoder.load(
        decoder.Config(model=llama), CLASSES, 0).model.parameters()) + _added(whole)  # fmt: skip
    adapted = inference.load(whole.path)
    assert adapted.evaluate("test")[0] == prediction.read(whole.predictions("test"))


def _added(run):
    """Return how many numbers a run trains, and those of the head that it keeps as it was."""
    from safetensors.torch import load_file

    saved = load_file(run.adapter / "adapter_model.safetensors")
    return sum(tensor.numel() for tensor in saved.values())


def refusal(values, tmp_path):
    (tmp_path / "run.yaml").write_text(config.dump(values), encoding="utf-8")
    with pytest.raises(GraftlabError) as error:
        runfile.resolve(config.read(tmp_path / "run.yaml"))
    return str(error.value)


def values(llama, **changes):
    given = {
        "backbone": {"model": llama, "quantization": {"bits": 4}},
        "task": {"name": "sst2"},
        "method": {"name": "lora"},
    }
    return merge(given, changes)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ({"name": "full"}, "every weight trains"),
        ({"name": "pissa"}, "it takes a part out of the frozen weights"),
        ({"name": "lora", "init": "olora"}, "init olora takes a part"),
    ],
)
def test_what_cannot_stand_on_few_bits_is_refused_before_anything_is_loaded(
    llama, method, why, tmp_path
):
    given = values(llama)
    said = refusal({**given, "method": method}, tmp_path)
    assert f"does not fit backbone.quantization: {why}" in said


def test_dora_is_refused_on_eight_bits_whose_scales_it_would_lose(llama, tmp_path):
    section = {"model": llama, "quantization": {"bits": 8}}
    given = {**values(llama), "backbone": section, "method": {"name": "dora"}}
    assert "8-bit" in refusal(given, tmp_path)


def test_all_conflicts_of_a_run_file_are_said_at_once(llama, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        _quantization, "find_spec", lambda name: None if name == "bitsandbytes" else real(name)
    )
    given = values(llama, training={"best_by": "rogue"})
    said = refusal({**given, "method": {"name": "full"}}, tmp_path)
    assert "backbone.quantization" in said
    assert "pip install 'graftlab[quantized]'" in said
    assert "unknown metric 'rogue'" in said


def test_of_eight_bits_settings_for_four_are_refused(llama, tmp_path):
    section = {"model": llama, "quantization": {"bits": 8, "type": "fp4", "double": False}}
    said = refusal({**values(llama), "backbone": section}, tmp_path)
    assert "bits 8" in said


def test_the_optimizer_says_nothing_of_the_backbone(llama, tmp_path):
    given = values(llama, training={"optimizer": {"name": "paged_adamw_8bit"}})
    (tmp_path / "run.yaml").write_text(config.dump({**given, "backbone": {"model": llama}}))
    file = runfile.resolve(config.read(tmp_path / "run.yaml"))
    assert file.backbone.config.quantization is None


def test_a_checkpoint_that_is_quantized_already_is_refused(llama, tmp_path):
    load(llama).model.save_pretrained(tmp_path)
    load(llama).processor.save_pretrained(tmp_path)
    with pytest.raises(ModelError, check=fault("quantized", given="bitsandbytes")):
        decoder.load(decoder.Config(model=str(tmp_path)), TOKENS, 0)


def test_kernels_say_once_what_they_say_at_every_layer():
    from graftlab.weights import quantized

    quantized.say_once()
    quantized.say_once()
    logger, told = logging.getLogger(quantized.KERNELS), []
    handler = logging.Handler()
    handler.emit = told.append
    logger.addHandler(handler)
    for dtype in ("float32", "float32", "bfloat16", "float32"):
        logger.warning("inputs will be cast from %s", dtype)
    logger.removeHandler(handler)
    assert [record.args for record in told] == [("float32",), ("bfloat16",)]
