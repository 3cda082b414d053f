"""What only prompt tuning promises, and the bug of peft that `adapters.off` goes around."""

import pytest
import torch

from graftlab.methods import prompt
from graftlab.testing import rig


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_peft_still_cannot_turn_a_prompt_method_off_on_classifiers(attach, encoder, name):
    # When this fails, peft has mended it: take the second half out of graftlab.adapters.off.
    model = attach(name).model
    with pytest.raises(UnboundLocalError), model.disable_adapter():
        pass


def test_it_starts_from_the_words_of_a_text(encoder):
    class Tokenizer:
        def __call__(self, text, add_special_tokens):
            assert not add_special_tokens
            return {"input_ids": [int(word) for word in text.split()]}

    backbone = rig.backbone(encoder)
    backbone = type(backbone)(**{**vars(backbone), "processor": Tokenizer()})
    words = backbone.model.get_input_embeddings().weight.detach().clone()
    config = prompt.Config(num_tokens=5, init_text="3 7")
    model = prompt.attach(backbone, config, rig.setting(encoder)).model
    start = model.prompt_encoder["default"].embedding.weight
    assert torch.equal(start, words[[3, 7, 3, 7, 3]])


def test_a_decoders_class_does_not_depend_on_padding(attach):
    model = attach("prompt", "decoder").model.eval()
    ids = torch.randint(1, rig.VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
        right, left = (
            model(
                input_ids=torch.nn.functional.pad(ids, padding),
                attention_mask=torch.nn.functional.pad(mask, padding),
            ).logits
            for padding in ((0, 4), (4, 0))
        )
    torch.testing.assert_close(right, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(left, expected, rtol=1e-4, atol=1e-5)


def test_images_are_refused_before_loading():
    assert prompt.PROMISES.misfit("vision", "swin")
    assert prompt.PROMISES.misfit("encoder", "bert") is None
