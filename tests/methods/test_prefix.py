"""What only prefix tuning promises."""

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from graftlab.errors import ConfigError
from graftlab.methods import prefix
from graftlab.testing import rig


@pytest.mark.parametrize(
    "model_type", ["albert", "deberta", "deberta-v2", "modernbert", "distilbert", "vit"]
)
def test_architectures_that_it_does_not_fit_are_named_before_loading(model_type):
    assert prefix.PROMISES.misfit("encoder", model_type)


def test_images_and_gradient_checkpointing_are_refused_before_loading():
    assert prefix.PROMISES.misfit("vision", "swin")
    (fault,) = prefix.check(prefix.Config(), "encoder", "bert", True)
    assert "gradient_checkpointing" in fault.said
    assert prefix.check(prefix.Config(), "encoder", "bert", False) == []
    assert prefix.PROMISES.misfit("encoder", "bert") is None


def test_attaching_refuses_the_same(encoder):
    setting = dataclasses.replace(rig.setting(encoder), gradient_checkpointing=True)
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        prefix.attach(rig.backbone(encoder), prefix.Config(), setting)


def test_it_starts_from_the_keys_and_values_of_the_first_words(attach, encoder):
    model = attach("prefix", num_tokens=5).model
    words = prefix.first_words(rig.setting(encoder), 5)
    bert = rig.backbone(encoder).model.bert
    seen = []
    attention = bert.encoder.layer[0].attention.self
    attention.key.register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.no_grad():
        bert(input_ids=words)
    start = model.prompt_encoder["default"].embedding.weight.view(5, 4, 32)  # K, V of two layers
    torch.testing.assert_close(start[:, 0], seen[0][0])


def test_words_that_the_data_does_not_have_are_refused(attach):
    with pytest.raises(ConfigError, match="fewer tokens"):
        attach("prefix", num_tokens=5000)


def test_a_projection_has_no_words_to_start_from(attach, encoder):
    with pytest.raises(ValidationError, match="init random"):
        prefix.Config(peft={"prefix_projection": True})
    attached = attach("prefix", init="random", peft={"prefix_projection": True})
    assert all(rig.train(attached, encoder).values())
