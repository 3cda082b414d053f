"""What users of plain PEFT get from an adapter folder."""

import pytest
import torch
from peft import PeftModel, get_model_status

import graftlab.auto
from graftlab import registry
from graftlab.backbones import encoder
from graftlab.errors import ModelError
from graftlab.testing import rig

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", ["encoder", "decoder", "tokens", "vision"])
@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "bitfit"])
def test_plain_peft_loads_the_folder_to_the_same_bits(attach, name, family, tmp_path):
    method, fitted = registry.find("methods", name), rig.FAMILIES[family]
    attached = attach(name, family)
    rig.train(attached, fitted, steps=rig.NUM_STEPS)
    method.save(attached.model, tmp_path)
    ours = method.load(rig.backbone(fitted), method.Config(), tmp_path)
    theirs = PeftModel.from_pretrained(rig.backbone(fitted).model, tmp_path)
    expected = rig.outputs(ours, fitted)
    assert torch.equal(rig.outputs(theirs, fitted), expected)


@pytest.mark.parametrize("name", ["lora", "dora", "adalora"])
def test_plain_peft_loads_an_adapter_of_minilm_to_the_same_bits(name, tmp_path):
    def minilm():
        try:
            return encoder.load(encoder.Config(model="minilm"), rig.CLASSES, seed=0)
        except ModelError as error:
            pytest.skip(f"MiniLM is not at hand: {error}")

    method, fitted = registry.find("methods", name), rig.FAMILIES["encoder"]
    attached = method.attach(minilm(), method.Config(), rig.setting(fitted))
    rig.train(attached, fitted)
    method.save(attached.model, tmp_path)
    ours = rig.outputs(method.load(minilm(), method.Config(), tmp_path), fitted)
    theirs = rig.outputs(PeftModel.from_pretrained(minilm().model, tmp_path), fitted)
    assert torch.equal(ours, theirs)
    exact = method.PROMISES.reloads_exactly
    trained = rig.outputs(attached.model, fitted)
    torch.testing.assert_close(ours, trained, rtol=0, atol=0 if exact else 1e-5)


def test_lists_in_the_config_are_sorted(attach):
    from graftlab.adapters import config_dict

    config = config_dict(attach("lora").model)
    for name in ("target_modules", "modules_to_save"):
        assert config[name] == sorted(config[name])
    assert config["base_model_name_or_path"] == "tiny"


def test_registering_twice_does_nothing_and_peft_knows_the_type(attach):
    import importlib

    importlib.reload(graftlab.auto)
    status = get_model_status(attach("bitfit").model)
    assert status.peft_types == {"default": "BITFIT"}


def test_a_name_that_peft_has_is_not_taken_over():
    from graftlab.adapters import register

    with pytest.raises(ValueError, match="'lora'"):
        register("lora", object, object)
