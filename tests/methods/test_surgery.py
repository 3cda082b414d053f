"""What finding, freezing and converting layers promises."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from graftlab import registry
from graftlab.contracts import Backbone
from graftlab.testing import rig
from graftlab.weights import surgery


def test_a_frozen_batch_norm_keeps_its_statistics_in_training():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model(torch.randn(8, 3, 5, 5))
    before = {n: buffer.clone() for n, buffer in model.named_buffers()}
    images = 5 + torch.randn(8, 3, 5, 5)
    expected = model.eval()(images)
    surgery.freeze(model)
    assert torch.equal(model.train()(images), expected)
    assert all(torch.equal(buffer, before[n]) for n, buffer in model.named_buffers())


def test_an_output_projection_that_is_used_but_never_called_is_no_target():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert surgery.match_targets(model, "all-linear") == ["linear1", "linear2"]


def test_the_layer_that_scores_the_vocabulary_is_no_target():
    model = rig.backbone(rig.FAMILIES["tokens"]).model
    assert not [n for n in surgery.match_targets(model, "all-linear") if "lm_head" in n]


@pytest.mark.parametrize("name", ["lora", "pissa", "dora", "adalora", "bitfit"])
def test_conv1d_is_a_linear_layer_whose_changes_have_its_own_layout(name):
    def backbone():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=60,
            n_embd=24,
            n_layer=1,
            n_head=2,
            n_positions=40,
            num_labels=3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        model = GPT2ForSequenceClassification(config).eval()
        return Backbone(model, "decoder", None, ("score",), 12)

    family, method = rig.FAMILIES["decoder"], registry.find("methods", name)
    attached = method.attach(backbone(), method.Config(), rig.setting(family))
    rig.train(attached, family)
    deltas = dict(method.deltas(attached.model))
    assert any("c_attn" in n for n in deltas)
    before = dict(backbone().model.named_parameters())
    expected = rig.outputs(attached.model, family)
    merged = method.merge(attached.model)
    torch.testing.assert_close(rig.outputs(merged, family), expected, rtol=1e-4, atol=1e-5)
    for weight, value in dict(merged.named_parameters()).items():
        if weight in deltas:
            change = deltas[weight]
            change = change[0] @ change[1] if isinstance(change, tuple) else change
            torch.testing.assert_close(value, before[weight] + change, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["head", "lora", "bitfit", "prefix", "prompt"])
def test_a_backbone_in_bfloat16_trains_and_reloads_with_a_head_in_float32(name, tmp_path):
    family, method = rig.FAMILIES["encoder"], registry.find("methods", name)

    def backbone():
        half = rig.backbone(family)
        half.model.to(torch.bfloat16)
        return half

    attached = method.attach(backbone(), method.Config(), rig.setting(family))
    assert all(rig.train(attached, family).values())
    expected = rig.outputs(attached.model, family)
    method.save(attached.model, tmp_path)
    loaded = method.load(backbone(), method.Config(), tmp_path)
    assert torch.equal(rig.outputs(loaded, family), expected)


def test_weights_that_no_linear_layer_holds_are_named_with_their_share():
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 64, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = MixtralForCausalLM(
        MixtralConfig(num_hidden_layers=2, num_local_experts=4, **sizes, **heads)
    )
    found = surgery.left_out(model)
    assert found == {  # two layers: four experts, gate and up fused, and the router of four
        "model.layers.*.mlp.experts.gate_up_proj": 2 * 4 * 32 * 2 * 64,
        "model.layers.*.mlp.experts.down_proj": 2 * 4 * 64 * 32,
        "model.layers.*.mlp.gate.weight": 2 * 32 * 4,
    }
    share = sum(found.values()) / sum(p.numel() for p in model.parameters())
    note = surgery.unreached(model, "all-linear")
    assert note.fields["share"] == pytest.approx(share)
    assert "experts.gate_up_proj" in str(note)
    assert surgery.unreached(model, ["q_proj"]) is None


@pytest.mark.parametrize("family", rig.FAMILIES)
def test_an_ordinary_model_has_all_its_matrices_in_linear_layers(family):
    if not rig.FAMILIES[family].bits:
        backbone = rig.backbone(rig.FAMILIES[family])
        assert surgery.unreached(backbone.model, "all-linear", backbone.head) is None
