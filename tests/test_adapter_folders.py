"""Adapter folders that plain peft has written: the change of each weight is what peft makes of it."""

import json
import logging

import numpy as np
import peft
import pytest
import torch
import transformers
from finished_runs import SMALL
from safetensors.torch import save_file

from graftlab import explanation
from graftlab.analyses import spectra
from graftlab.contracts import About, Asked
from graftlab.contracts.analysis import NEW, NO_CHANGE
from graftlab.errors import ConfigError, ModelError
from graftlab.explanation import targets
from graftlab.explanation.adapter_folder import AdapterFolder
from graftlab.explanation.spool import Spool
from graftlab.explanation.stored import Stored
from graftlab.testing.analyses import asked
from graftlab.weights import quantized

GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 40}
FORWARD = ["intermediate.dense", "output.dense"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A BERT, and a GPT-2 whose weights lie the other way round."""
    folder = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    models = {
        "bert": transformers.BertModel(transformers.BertConfig(**SMALL)),
        "gpt": transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT)),
    }
    for name, model in models.items():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)  # biases too
        model.save_pretrained(folder / name)
    return folder


def opened(base):
    kind = transformers.BertModel if base.name == "bert" else transformers.GPT2LMHeadModel
    return kind.from_pretrained(base)


ADAPTERS = {
    "lora of patterns": ("bert", lambda: peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=["query", "dense"], use_rslora=True, bias="lora_only",
        rank_pattern={"0.output.dense": 3}, alpha_pattern={"query": 5},
    )),
    "lora with a bias": ("bert", lambda: peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=["query", "dense"], lora_bias=True,
        rank_pattern={"query": 3},
    )),
    "lora of an embedding": ("bert", lambda: peft.LoraConfig(
        r=2, target_modules=["word_embeddings"],
    )),
    "dora": ("bert", lambda: peft.LoraConfig(
        r=2, target_modules=["query", "dense"], use_dora=True, use_rslora=True,
    )),
    "dora turned": ("gpt", lambda: peft.LoraConfig(
        r=2, target_modules=["c_attn", "c_fc"], use_dora=True, fan_in_fan_out=True,
    )),
    "adalora": ("bert", lambda: peft.AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=6, target_modules=["query"], total_step=10,
    )),
    "adalora turned": ("gpt", lambda: peft.AdaLoraConfig(
        init_r=3, target_r=2, target_modules=["c_fc"], total_step=10, fan_in_fan_out=True,
    )),
    "ia3": ("bert", lambda: peft.IA3Config(
        target_modules=["key", *FORWARD], feedforward_modules=FORWARD[1:],
    )),
    "ia3 turned": ("gpt", lambda: peft.IA3Config(
        target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    )),
    "loha": ("bert", lambda: peft.LoHaConfig(
        r=2, alpha=3, target_modules=["query", "value"], rank_pattern={"value": 3},
        alpha_pattern={"0.attention.self.query": 5},
    )),
    "lokr": ("bert", lambda: peft.LoKrConfig(
        r=2, alpha=3, target_modules=["query", "intermediate.dense"], rank_pattern={"query": 1},
    )),
    "lokr of four": ("bert", lambda: peft.LoKrConfig(
        r=1, alpha=3, target_modules=["query"], decompose_both=True, decompose_factor=4,
    )),
}  # fmt: skip


def adapted(model, config, folder):
    """Put an adapter on a model, draw all that it trains, and save it as peft does."""
    made = peft.get_peft_model(model, config)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draws), alpha=0.2)
    made.save_pretrained(folder)
    return made.eval()


def whole(change):
    return change.left if change.right is None else change.left @ change.right


def changes(folder, base=None):
    subject = AdapterFolder(folder, base, About("adapter"))
    return {name: subject.change(name) for name in subject.names()}


@pytest.mark.quick("dora", "adalora", "ia3", "loha", "lokr")
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_change_is_the_difference_of_pefts_merged_model_from_its_base(bases, tmp_path, kind):
    name, config = ADAPTERS[kind]
    made = adapted(opened(bases / name), config(), tmp_path)
    before = dict(opened(bases / name).named_parameters())
    after = dict(made.merge_and_unload().named_parameters())
    moved = {n for n, p in after.items() if not torch.allclose(p, before[n], rtol=0, atol=1e-6)}
    found = changes(tmp_path)
    assert set(found) == moved
    for weight in moved:
        expected = (after[weight] - before[weight]).detach()
        torch.testing.assert_close(whole(found[weight]), expected, rtol=1e-4, atol=1e-5)


def starts(made):
    """What a run of this project keeps of an adapter's start, beside it."""
    layers = {n: m for n, m in made.base_model.model.named_modules() if hasattr(m, "lora_A")}
    return {
        f"{name}.initial_{key}": getattr(layer, f"lora_{key}")["default"].weight.detach().clone()
        for name, layer in layers.items() for key in "AB"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "target", "fields"),
    [
        ("bert", "query", {"init_lora_weights": "pissa", "use_rslora": True}),
        ("bert", "query", {"init_lora_weights": "olora", "use_dora": True}),
        ("gpt", "c_attn", {"init_lora_weights": "pissa", "fan_in_fan_out": True}),
    ],
)
def test_what_a_start_took_out_of_the_weight_is_no_change(bases, tmp_path, name, target, fields):
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=[target], **fields)
    first = starts(peft.get_peft_model(opened(bases / name), config))
    made = adapted(opened(bases / name), config, tmp_path)
    with pytest.raises(ConfigError) as raised:
        changes(tmp_path)
    assert raised.value.problems[0].kind == NO_CHANGE
    save_file(first, tmp_path / "initial_adapter.safetensors")
    before, found = dict(opened(bases / name).named_parameters()), changes(tmp_path)
    after = dict(made.merge_and_unload().named_parameters())
    assert set(found) == {n for n in after if n.endswith(f"{target}.weight")}
    for weight, change in found.items():
        expected = (after[weight] - before[weight]).detach()
        torch.testing.assert_close(whole(change), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", ["pissa_niter_4", "OLoRA", "corda", "lora_ga", "loftq", "eva"])
def test_starts_that_change_the_weights_are_refused_and_others_are_not(bases, tmp_path, start):
    adapted(opened(bases / "bert"), ADAPTERS["lora of patterns"][1](), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": start}))
    if start == "eva":
        assert changes(tmp_path)
    else:
        with pytest.raises(ConfigError, match=start.lower()):
            changes(tmp_path)


def test_factors_stay_factors_and_what_is_dense_is_said_to_be(bases, tmp_path):
    for kind, right in (("adalora", True), ("loha", False)):
        adapted(opened(bases / "bert"), ADAPTERS[kind][1](), tmp_path / kind)
        subject = AdapterFolder(tmp_path / kind, None, About(kind))
        line = next(iter(spectra.rows([subject], asked())))
        assert (subject.change(line.layer).right is not None) == right
        assert (line.note == spectra.DENSE) == (not right)
        assert (line.type, line.rank) == (kind, {"adalora": 4, "loha": 2}[kind])


def test_ranks_that_adalora_has_taken_away_leave_the_scale_of_the_start(bases, tmp_path):
    made = peft.get_peft_model(opened(bases / "bert"), ADAPTERS["adalora"][1]())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_E" in name:
                parameter.copy_(torch.tensor([[1.0], [0.0], [2.0], [0.0]]))
    layers = [n for n, m in made.base_model.model.named_modules() if hasattr(m, "lora_E")]
    kept = {f"{layer}.lora_E.default": [True, False, True, False] for layer in layers}
    made.peft_config["default"].rank_pattern = kept
    expected = {
        layer: made.base_model.model.get_submodule(layer).get_delta_weight("default").detach()
        for layer in layers
    }
    made.save_pretrained(tmp_path)
    found = changes(tmp_path)
    for layer, change in expected.items():
        assert found[f"{layer}.weight"].right.shape[0] == 2
        torch.testing.assert_close(whole(found[f"{layer}.weight"]), change)


@pytest.mark.parametrize("kind", [peft.LoHaConfig, peft.LoKrConfig])
def test_a_convolutions_change_is_that_of_peft_as_a_matrix(tmp_path, kind):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 12, 3)

    config = kind(r=2, alpha=3, target_modules=["conv"], use_effective_conv2d=True)
    made = adapted(Net(), config, tmp_path)
    (change,) = changes(tmp_path).values()
    expected = made.base_model.model.conv.get_delta_weight("default").detach()
    torch.testing.assert_close(whole(change), expected.reshape(12, -1))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_in_few_bits_is_what_they_stand_for(tmp_path, bits, caplog):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(
        **sizes, num_attention_heads=2, num_key_value_heads=2, vocab_size=50
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "whole")
    few = {"bnb_4bit_use_double_quant": True, "bnb_4bit_quant_type": "nf4"} if bits == 4 else {}
    how = transformers.BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, **few)
    model = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "whole", quantization_config=how
    )
    model.save_pretrained(tmp_path / "base")
    layer = model.model.layers[0].self_attn.q_proj
    before = quantized.weight(layer)
    name = "model.layers.0.self_attn.q_proj.weight"
    with caplog.at_level(logging.INFO, "graftlab"):
        torch.testing.assert_close(Stored(str(tmp_path / "base")).read(name), before)
    assert "few bits" in caplog.text
    made = adapted(
        model,
        peft.LoraConfig(r=2, target_modules=["q_proj"], use_dora=True),
        tmp_path / "adapter",
    )
    found = whole(changes(tmp_path / "adapter", str(tmp_path / "base"))[name])
    inner = made.base_model.model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        after = inner(torch.eye(64)).T
    # products in 8 bits round what goes in, to some 1 / 127 of the largest
    close = {"rtol": 1e-4, "atol": 1e-5} if bits == 4 else {"rtol": 0, "atol": 2e-3}
    torch.testing.assert_close(found, after - before, **close)


def classifier(base):
    return transformers.BertForSequenceClassification.from_pretrained(base, num_labels=3)


def test_a_new_head_has_its_own_spectrum_and_empty_cells_beside_nothing(bases, tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    made = adapted(classifier(bases / "bert"), config, tmp_path / "adapter")
    made.merge_and_unload().save_pretrained(tmp_path / "merged")
    head = made.base_model.model.classifier
    weight = getattr(head, "modules_to_save", {"default": head})["default"].weight
    values = np.linalg.svd(weight.detach().numpy(), compute_uv=False)
    base = str(bases / "bert")
    for target in (tmp_path / "adapter", f"{base}:{tmp_path / 'merged'}"):
        with Spool() as spool:
            models = targets.find([str(target)], targets.Options(base), spool)
            table = explanation.carry_out(
                models, tmp_path / "out", ["spectra"], Asked(top=3), figures=True
            )[0][0]
        (line,) = [row for row in table.rows if row.layer == "classifier.weight"]
        assert [line.sv_0, line.sv_1, line.sv_2] == pytest.approx(list(values), rel=1e-5)
        assert (line.note, line.effective_rank, line.rows) == (NEW, 3, 3)
        compared = [n for n in line._fields if n.startswith(("change_", "null_", "angle_"))]
        assert {getattr(line, n) for n in (*compared, "sv_correlation", "relative_change")} == {
            None
        }
        assert all(row.change_sv_0 for row in table.rows if row is not line)


def test_an_adapter_that_changes_no_weight_is_refused_alone_and_said_beside_others(
    bases, tmp_path, caplog
):
    base = str(bases / "gpt")
    config = peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    adapted(opened(bases / "gpt"), config, tmp_path / "prefix")
    adapted(opened(bases / "gpt"), ADAPTERS["adalora turned"][1](), tmp_path / "other")
    unread = peft.HRAConfig(target_modules=["lm_head"])
    adapted(opened(bases / "gpt"), unread, tmp_path / "hra")

    def found(*names):
        with Spool() as spool:
            given = [str(tmp_path / name) for name in names]
            models = targets.find(given, targets.Options(base), spool)
            tables, _ = explanation.carry_out(
                models, tmp_path / "out", ["spectra"], Asked(top=3, null=False), figures=False
            )
            return tables[0].rows, explanation.write(tmp_path / "out", models, tables, [])

    for name in ("prefix", "hra"):
        with pytest.raises(ConfigError, match=name.upper()):
            found(name)
    assert not (tmp_path / "out").exists()
    rows, told = found("prefix", "other", "hra")
    assert {row.model for row in rows} == {"other"}
    assert "PREFIX_TUNING" in caplog.text
    assert "merge_and_unload" in caplog.text
    assert "prefix" in told.summary


def test_an_adapter_of_another_shape_is_refused_by_the_weight_whatever_its_type(bases, tmp_path):
    other = transformers.BertModel(transformers.BertConfig(**{**SMALL, "hidden_size": 32}))
    other.save_pretrained(tmp_path / "other")
    for kind in ("dora", "adalora", "ia3", "loha", "lokr"):
        adapted(opened(bases / "bert"), ADAPTERS[kind][1](), tmp_path / kind)
        subject = AdapterFolder(tmp_path / kind, str(tmp_path / "other"), About(kind))
        with pytest.raises(ModelError, match=r"\.weight"):
            subject.names()
