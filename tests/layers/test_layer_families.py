"""One layer read alone is the layer of the whole model, in every family, pooled mode included."""

import pytest
import torch
from decoders import FAMILIES, NUM_LAYERS, WINDOW, make
from torch.testing import assert_close
from transformers import AutoModel

from graftlab.weights import layers
from graftlab.weights.layers.checkpoint import POOLED

NUM_TOKENS = 11
FUSED_OR_SINKS = ("bloom", "falcon", "gpt2", "gpt_neox", "gpt_oss", "phi3")


def masks():
    """Yield no mask, padding on the left and padding on the right; all longer than a sliding window."""
    assert NUM_TOKENS > WINDOW
    yield None
    for padding in (slice(0, 5), slice(6, None)):
        mask = torch.ones(3, NUM_TOKENS, dtype=torch.long)
        mask[0, padding] = 0
        yield mask


def passed(model, ids, mask):
    """Return what went into and out of each layer of a whole model."""
    states = []

    def note(module, arguments, named, output):
        entered = arguments[0] if arguments else named["hidden_states"]
        states.append(
            (entered.clone(), (output[0] if isinstance(output, tuple) else output).clone())
        )

    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    blocks = next(found for found in lists if len(found) == NUM_LAYERS)
    hooks = [block.register_forward_hook(note, with_kwargs=True) for block in blocks]
    with torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    for hook in hooks:
        hook.remove()
    return blocks, states


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request, tmp_path_factory):
    """The whole model, and the checkpoint of which single layers are read."""
    folder = make(tmp_path_factory.mktemp(request.param.replace(":", "-")), request.param)
    whole = AutoModel.from_pretrained(folder).eval()
    return whole, layers.open(folder)


@pytest.mark.quick("llama*", "gpt2", "gemma2", "mixtral")
def test_every_layer_is_the_whole_models(opened):
    whole, checkpoint = opened
    ids = torch.randint(3, 60, (3, NUM_TOKENS), generator=torch.Generator().manual_seed(1))
    for mask in masks():
        blocks, states = passed(whole, ids, mask)
        for index, (before, after) in enumerate(states):
            layer = checkpoint.load_layer(index)
            expected = blocks[index].state_dict()
            assert layer.block.state_dict().keys() == expected.keys()
            assert all(torch.equal(v, expected[k]) for k, v in layer.block.state_dict().items())
            with torch.no_grad():
                assert_close(layer(before, mask), after)


@pytest.mark.quick("llama*", "gpt2", "gemma2", "mixtral")
def test_embedding_and_layers_in_turn_give_the_whole_models_hidden_states(opened):
    whole, checkpoint = opened
    ids = torch.randint(3, 60, (3, NUM_TOKENS), generator=torch.Generator().manual_seed(2))
    for mask in masks():
        _, states = passed(whole, ids, mask)
        hidden = checkpoint.embed(ids, attention_mask=mask)
        assert_close(hidden, states[0][0])
        for index, (_, after) in enumerate(states):
            with torch.no_grad():
                hidden = checkpoint.load_layer(index)(hidden, mask)
            assert_close(hidden, after)


@pytest.mark.quick("llama*", "gpt2", "gemma2", "mixtral")
def test_one_token_needs_no_more_than_pooled_mode_reads(opened):
    _, checkpoint = opened
    vectors = torch.randn(5, checkpoint.hidden_size, generator=torch.Generator().manual_seed(3))
    for index in range(checkpoint.num_layers):
        whole = checkpoint.load_layer(index)
        pooled = checkpoint.load_layer(index, pooled=True)
        with torch.no_grad():
            expected = whole(vectors[:, None])[:, 0]
            assert_close(pooled.pooled(vectors), expected, rtol=0, atol=0)
        read_less = checkpoint.layer_bytes(index, pooled=True) < checkpoint.layer_bytes(index)
        assert read_less == pooled.record["pooled"] == (checkpoint.family in POOLED)


def test_pooled_mode_is_proved_for_every_family_that_has_it():
    families = {name.partition(":")[0] for name in FAMILIES}
    assert families >= POOLED
    assert not POOLED.intersection(FUSED_OR_SINKS)
