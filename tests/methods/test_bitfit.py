"""What only BitFit promises."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from graftlab.contracts import Backbone
from graftlab.errors import ConfigError
from graftlab.methods import bitfit
from graftlab.testing import rig


def test_it_trains_exactly_the_biases(attach, encoder):
    attached = attach("bitfit")
    reference = rig.backbone(encoder).model
    biases = {n for n, _ in reference.named_parameters() if n.endswith(".bias")}
    assert {n for n, _ in bitfit.deltas(attached.model)} == biases - {"classifier.bias"}


def test_a_step_is_the_step_that_training_the_biases_themselves_takes(attach, encoder):
    attached = attach("bitfit")
    reference = rig.backbone(encoder).model.eval()
    biases = [p for n, p in reference.named_parameters() if n.endswith(".bias")]
    rig.loss(reference, encoder).backward()
    torch.optim.SGD(biases, lr=0.5).step()
    model = attached.model.eval()
    deltas = [
        p for n, p in model.named_parameters() if "bitfit_" in n or n.endswith("default.bias")
    ]
    rig.loss(model, encoder).backward()
    torch.optim.SGD([p for p in deltas if p.requires_grad], lr=0.5).step()
    expected = rig.outputs(reference, encoder)
    torch.testing.assert_close(rig.outputs(model, encoder), expected, rtol=1e-5, atol=1e-6)


def test_a_backbone_without_biases_is_refused(encoder):
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=3,
    )
    llama = Backbone(LlamaForSequenceClassification(config), "decoder", None, ("score",), 12)
    with pytest.raises(ConfigError, match=r"LlamaForSequenceClassification.*none"):
        bitfit.attach(llama, bitfit.Config(), rig.setting(encoder))


def test_it_merges_beside_a_head_of_several_layers(encoder):
    config = RobertaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=40,
        num_labels=3,
    )
    model = RobertaForSequenceClassification(config)
    roberta = Backbone(model, "encoder", None, ("classifier",), 12)
    attached = bitfit.attach(roberta, bitfit.Config(), rig.setting(encoder))
    rig.train(attached, encoder)
    expected = rig.outputs(attached.model, encoder)
    merged = bitfit.merge(attached.model)
    torch.testing.assert_close(rig.outputs(merged, encoder), expected, rtol=1e-4, atol=1e-5)


def test_the_layers_say_how_wide_they_are_as_pefts_own_do():
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    from graftlab.methods.bitfit.tuner import BitfitConfig, BitfitLayer

    layers = {
        "linear": (torch.nn.Linear(3, 5), (3, 5)),
        "conv": (torch.nn.Conv2d(4, 6, 3, groups=2), (4, 6)),
        "transposed": (Conv1D(7, 2), (2, 7)),
        "norm": (torch.nn.LayerNorm(8), (8, 8)),
        "groups": (torch.nn.GroupNorm(2, 10), (10, 10)),
    }
    model = torch.nn.ModuleDict({name: layer for name, (layer, _) in layers.items()})
    adapted = get_peft_model(model, BitfitConfig(target_modules=list(layers)))
    found = {
        name.rpartition(".")[2]: (module.in_features, module.out_features)
        for name, module in adapted.named_modules()
        if isinstance(module, BitfitLayer)
    }
    assert found == {name: sides for name, (_, sides) in layers.items()}
