"""States streamed layer by layer are those of the whole model; a killed process goes on."""

import numpy as np
import pytest
import torch
from plugged_models import NUM_LAYERS, WORDS, write_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from graftlab.selection import hidden_states
from graftlab.selection.hidden_states import Stream, tokenize
from graftlab.weights import layers

TEXTS = ["the film was good", "so bad", "it was a very very odd film", "", "good"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "llm")


@pytest.fixture
def tokens(folder, monkeypatch):
    monkeypatch.setattr(hidden_states, "BATCH_TOKENS", 16)  # several batches, some with pads
    return tokenize(TEXTS, [None] * len(TEXTS), AutoTokenizer.from_pretrained(folder), 6)


def whole(folder, text):
    """Return the states after each layer of the whole model, alone and without padding, each (T, d)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    raw = []
    for layer in model.model.layers:  # its own last hidden state is after the final norm
        layer.register_forward_hook(lambda *given: raw.append(given[2]))
    ids = tokenizer(text, truncation=True, max_length=6)["input_ids"] or [tokenizer.bos_token_id]
    with torch.no_grad():
        found = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    states = [layer[0] for layer in raw]
    for number, state in enumerate(states[:-1]):
        torch.testing.assert_close(found[number + 1][0], state)
    return [state.numpy() for state in states]


@pytest.mark.quick("mean")
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_streamed_states_are_those_of_the_whole_model(folder, tokens, tmp_path, pooling):
    stream = Stream(layers.open(str(folder)), tokens, tmp_path, pooling=pooling)
    take = {"mean": lambda s: s.mean(axis=0), "first": lambda s: s[0], "last": lambda s: s[-1]}
    expected = [whole(folder, text) for text in TEXTS]
    before = None
    for computed in stream.run(NUM_LAYERS - 1):
        found = np.array([take[pooling](text[computed.number]) for text in expected])
        np.testing.assert_allclose(computed.after, found, rtol=1e-4, atol=1e-5)
        if before is not None:
            assert (computed.before == before).all()
        before = computed.after
    assert computed.number == NUM_LAYERS - 1


def test_long_texts_are_cut_and_counted_and_empty_ones_have_a_token(tokens):
    assert tokens.truncated == 1
    assert sorted(mask.sum(dim=1).tolist() for mask in tokens.masks)[0][-1] == 1
    assert sorted(tokens.order) == list(range(len(TEXTS)))


def test_pairs_are_read_as_the_tokenizer_joins_them(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = tokenize(["a film"], ["so odd"], tokenizer, 8)
    words = [WORDS[number] for number in found.ids[0][0].tolist()]
    assert words == ["a", "film", "so", "odd"]


def test_a_process_that_was_killed_goes_on_after_its_last_layer(folder, tokens, tmp_path):
    smooth = [c.after for c in Stream(layers.open(str(folder)), tokens, tmp_path).run(3)]
    (tmp_path / hidden_states.STATES).unlink()
    first = Stream(layers.open(str(folder)), tokens, tmp_path).run(3)
    for _ in range(3):
        next(first)  # the third has been yielded, not yet saved
    first.close()
    checkpoint = layers.open(str(folder))
    loaded = []
    real = checkpoint.load_layer
    checkpoint.load_layer = lambda index, **more: loaded.append(index) or real(index, **more)
    rest = list(Stream(checkpoint, tokens, tmp_path).run(3))
    assert loaded == [2, 3]
    for computed in rest:
        assert (computed.after == smooth[computed.number]).all()


@pytest.mark.parametrize("last", [1, 3])
def test_the_last_layer_of_a_killed_process_comes_again_where_it_is_asked_for(
    folder, tokens, tmp_path, last
):
    smooth = list(Stream(layers.open(str(folder)), tokens, tmp_path).run(3))
    (tmp_path / hidden_states.STATES).unlink()
    first = Stream(layers.open(str(folder)), tokens, tmp_path).run(3)
    for _ in range(3):
        next(first)  # the second has been saved
    first.close()
    rest = list(
        Stream(layers.open(str(folder)), tokens, tmp_path).run(last, again={1}.__contains__)
    )
    assert [computed.number for computed in rest] == list(range(1, last + 1))
    for computed in rest:
        expected = smooth[computed.number]
        assert (computed.before == expected.before).all()
        assert (computed.after == expected.after).all()
        for name, tensor in expected.layer.state_dict().items():
            assert torch.equal(computed.layer.state_dict()[name], tensor)


def test_one_layer_at_most_is_read_ahead_and_none_is_kept(folder, tokens, tmp_path):
    import weakref

    checkpoint = layers.open(str(folder))
    real, alive, most = checkpoint.load_layer, weakref.WeakSet(), []

    def load(index, **more):
        layer = real(index, **more)
        alive.add(layer)
        most.append(len(alive))
        return layer

    checkpoint.load_layer = load
    for computed in Stream(checkpoint, tokens, tmp_path).run(3):
        del computed
    assert max(most) <= 2
    assert len(most) == NUM_LAYERS


def test_only_the_layers_and_the_rows_needed_are_read(folder, tokens, tmp_path):
    checkpoint = layers.open(str(folder))
    opened = checkpoint.bytes_read
    for _ in Stream(checkpoint, tokens, tmp_path).run(1):
        pass
    wanted = sum(checkpoint.layer_bytes(index) for index in (0, 1))
    rows = sum(4 * 24 * len(ids.unique()) for ids in tokens.ids)
    headers = 8 * 4096  # of the shards, which hold little each
    assert wanted <= checkpoint.bytes_read - opened <= wanted + rows + headers


def test_lower_precision_is_what_layers_compute_in(folder, tokens, tmp_path):
    exact = [c.after for c in Stream(layers.open(str(folder)), tokens, tmp_path / "a").run(0)]
    low = [
        c.after
        for c in Stream(layers.open(str(folder)), tokens, tmp_path / "b", dtype="bfloat16").run(0)
    ]
    assert low[0].dtype == np.float32
    assert (exact[0] != low[0]).any()
    np.testing.assert_allclose(exact[0], low[0], atol=0.1, rtol=0.1)  # 8 bits of mantissa
