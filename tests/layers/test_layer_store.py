"""The layer store on folders: what it reads, what it gives, and what it refuses."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from decoders import LLAMA, NUM_LAYERS, make
from faults import fault
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
)

from graftlab.errors import ModelError, Refused
from graftlab.weights import layers

WIDE = {"hidden_size": 256, "intermediate_size": 704}  # its layers are large beside the headers
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return make(tmp_path_factory.mktemp("sharded"), "llama", shard="20KB")


@pytest.fixture(scope="module")
def whole(sharded):
    return AutoModel.from_pretrained(sharded).eval()


@pytest.fixture
def copied(sharded, tmp_path):
    """A folder that a test may damage."""
    return Path(shutil.copytree(sharded, tmp_path / "model"))


def same(layer, block):
    expected = block.state_dict()
    return all(torch.equal(v, expected[k]) for k, v in layer.block.state_dict().items())


def test_a_layer_says_what_it_is(sharded, whole):
    layer = layers.load_layer(sharded, -1)
    assert layer.index == NUM_LAYERS - 1
    assert same(layer, whole.layers[-1])
    assert json.loads(json.dumps(layer.record)) == {
        "source": sharded,
        "revision": layers.open(sharded).revision,
        "index": NUM_LAYERS - 1,
        "dtype": "float32",
        "sha256": layer.sha256,
        "pooled": False,
    }


def test_one_token_passes_the_value_path_alone(sharded):
    """The closed form (softmax over one key is 1): z + O repeat(V norm(z)), then + MLP(norm(.))."""
    layer = layers.load_layer(sharded, 1, pooled=True)
    weights = {k: v.double() for k, v in layer.block.state_dict().items()}
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).double()

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weights[f"{name}.weight"]

    values = norm(vectors, "input_layernorm") @ weights["self_attn.v_proj.weight"].T
    heads = (
        values.view(5, 2, 8).repeat_interleave(2, dim=1).reshape(5, 32)
    )  # 2 key-value heads for 4
    hidden = vectors + heads @ weights["self_attn.o_proj.weight"].T
    x = norm(hidden, "post_attention_layernorm")
    gate = torch.nn.functional.silu(x @ weights["mlp.gate_proj.weight"].T)
    up = x @ weights["mlp.up_proj.weight"].T
    expected = hidden + (gate * up) @ weights["mlp.down_proj.weight"].T
    assert_close(layer.pooled(vectors.float()), expected.float())


@pytest.mark.parametrize("shard", ["1MB", "1GB"], ids=["sharded", "single-file"])
def test_no_more_is_read_than_the_layer(tmp_path, shard):
    folder = make(tmp_path, "llama", shard=shard, **WIDE)
    assert (tmp_path / INDEX).is_file() == (shard == "1MB")
    checkpoint = layers.open(folder)
    tensors = {}
    for file in tmp_path.glob("*.safetensors"):
        tensors |= load_file(file)
    mine = {k: v for k, v in tensors.items() if k.startswith("model.layers.1.")}
    size = sum(tensor.nbytes for tensor in mine.values())
    checkpoint.load_layer(1)
    assert size == checkpoint.layer_bytes(1) <= checkpoint.bytes_read <= 1.01 * size
    unread = sum(v.nbytes for k, v in mine.items() if "q_proj" in k or "k_proj" in k)
    assert checkpoint.layer_bytes(1, pooled=True) == size - unread


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's count of reads")
def test_the_kernel_counts_the_same_reads(tmp_path):
    checkpoint = layers.open(make(tmp_path, "llama", shard="1MB", **WIDE))
    checkpoint.load_layer(0)  # imports and headers are behind us

    def kernel():
        return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])

    before, ours = kernel(), checkpoint.bytes_read
    checkpoint.load_layer(1)
    theirs = kernel() - before
    assert checkpoint.bytes_read - ours == pytest.approx(theirs, abs=4096)  # /proc/self/io itself


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_chosen_at_load(tmp_path, dtype):
    folder = make(tmp_path, "llama", dtype=torch.bfloat16)
    expected = AutoModel.from_pretrained(folder, dtype=dtype).layers[2]
    layer = layers.load_layer(folder, 2, dtype=dtype)
    assert {p.dtype for p in layer.parameters()} == {getattr(torch, dtype)}
    assert same(layer, expected)
    assert layer.sha256 == layers.load_layer(folder, 2).sha256  # of what is stored


def test_the_hash_is_of_the_tensors_not_of_the_files(sharded, whole, copied, tmp_path):
    whole.save_pretrained(tmp_path / "single")
    single = layers.load_layer(tmp_path / "single", 1)
    assert single.sha256 == layers.load_layer(sharded, 1).sha256
    file = (
        copied
        / json.loads((copied / INDEX).read_text())["weight_map"][
            "model.layers.1.mlp.up_proj.weight"
        ]
    )
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, file)
    assert layers.load_layer(copied, 1).sha256 != single.sha256


def test_a_layer_stays_frozen_and_in_evaluation_mode_and_lets_gradients_through(tmp_path):
    layer = layers.load_layer(make(tmp_path, "falcon"), 0)  # its configuration has dropout
    torch.nn.Sequential(layer).train()
    hidden = torch.randn(2, 5, 32, requires_grad=True)
    assert torch.equal(layer(hidden), layer(hidden))
    layer(hidden).sum().backward()
    assert hidden.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in layer.parameters())


def test_a_layer_can_be_copied_and_moved(sharded):
    layer = layers.load_layer(sharded, 0)
    copies = copy.deepcopy(layer).to(torch.float64)
    hidden = torch.randn(2, 5, 32)
    assert_close(copies(hidden.double()).float(), layer(hidden))
    assert all(name.startswith("block.") for name in layer.state_dict())
    on_meta = copy.deepcopy(layer).to("meta")
    assert all(buffer.is_meta for buffer in on_meta.buffers())


def test_a_layer_of_pooled_mode_refuses_sequences(sharded):
    layer = layers.load_layer(sharded, 0, pooled=True)
    with pytest.raises(ModelError, match="pooled=False"):
        layer(torch.randn(1, 2, 32))


def test_of_the_embedding_only_the_rows_asked_for_are_read(sharded, whole):
    checkpoint = layers.open(sharded)
    checkpoint.embedding_rows(torch.tensor([5]))  # the shard's header is read
    before = checkpoint.bytes_read
    ids = torch.tensor([7, 3, 7, 63, 4])
    assert torch.equal(checkpoint.embedding_rows(ids), whole.embed_tokens.weight[ids])
    assert checkpoint.bytes_read - before == 4 * 32 * 4  # four rows, once each
    assert checkpoint.embedding_rows(torch.tensor([], dtype=torch.long)).shape == (0, 32)


def test_embedding_can_be_had_in_another_dtype(tmp_path):
    folder = make(tmp_path, "gemma2")
    ids = torch.randint(3, 60, (2, 5))
    whole = AutoModel.from_pretrained(folder, dtype="bfloat16")
    with torch.no_grad():
        expected = whole(ids, output_hidden_states=True).hidden_states[0]
    assert torch.equal(layers.open(folder).embed(ids, dtype="bfloat16"), expected)


def test_tokens_are_embedded_whatever_number_stands_for_padding(tmp_path):
    folder = make(tmp_path, "llama", pad_token_id=63)
    whole = AutoModel.from_pretrained(folder)
    ids = torch.tensor([[5, 5]])  # one row is read, far fewer than 63
    assert torch.equal(layers.open(folder).embed(ids), whole.embed_tokens(ids))


def test_a_random_layer_has_the_donors_norms_and_nothing_else_of_it(sharded):
    checkpoint = layers.open(sharded)
    donor = dict(checkpoint.load_layer(1).block.named_parameters())
    random = checkpoint.random_layer(1, seed=3)
    for name, drawn in random.block.named_parameters():
        assert_close(drawn.norm(), donor[name].norm())
        if "norm" in name:
            assert torch.equal(drawn, donor[name])
        else:
            cosine = torch.nn.functional.cosine_similarity(
                drawn.ravel(), donor[name].ravel(), dim=0
            )
            assert (
                abs(cosine) < 5 / drawn.numel() ** 0.5
            )  # five standard deviations of a random one
    assert random.record["random"] == 3
    assert random.sha256 == checkpoint.random_layer(1, seed=3).sha256
    others = [checkpoint.random_layer(1, seed=4), checkpoint.random_layer(0, seed=3)]
    assert len({random.sha256, checkpoint.load_layer(1).sha256, *(o.sha256 for o in others)}) == 4
    assert not any(p.requires_grad for p in random.parameters())


def renamed(folder, target, rename):
    """Copy a checkpoint into one file, its tensors under other names."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = {}
    for file in Path(folder).glob("*.safetensors"):
        tensors |= load_file(file)
    save_file(
        {rename(name): tensor for name, tensor in tensors.items()}, target / "model.safetensors"
    )
    return str(target)


@pytest.mark.parametrize("prefix", ["", "language_model.model.", "model.language_model."])
def test_layers_are_found_behind_other_prefixes(sharded, whole, tmp_path, prefix):
    folder = renamed(sharded, tmp_path / "renamed", lambda name: name.replace("model.", prefix, 1))
    assert same(layers.load_layer(folder, 1), whole.layers[1])
    ids = torch.tensor([[5, 6]])
    assert torch.equal(layers.open(folder).embed(ids), whole.embed_tokens(ids))


def test_the_decoder_of_a_model_with_pictures_is_found_beside_its_vision_tower(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": NUM_LAYERS}
    vision = CLIPVisionConfig(**sizes, num_attention_heads=4, image_size=16, patch_size=8)
    config = LlavaConfig(text_config=LlamaConfig(**LLAMA), vision_config=vision, image_token_id=60)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path, max_shard_size="20KB")
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path).model.language_model
    checkpoint = layers.open(str(tmp_path))
    assert (checkpoint.family, checkpoint.num_layers) == ("llama", NUM_LAYERS)
    assert same(checkpoint.load_layer(2), whole.layers[2])


def test_what_old_files_hold_beside_the_weights_is_not_read(tmp_path):
    folder = make(tmp_path, "gpt2", shard="1GB")
    file = tmp_path / "model.safetensors"
    before = layers.open(folder).layer_bytes(1)
    save_file(load_file(file) | {"transformer.h.1.attn.bias": torch.ones(1, 1, 64, 64)}, file)
    assert layers.open(folder).layer_bytes(1) == before
    layers.load_layer(folder, 1)


def hybrid(folder):
    return make_other(folder, "jamba", attn_layer_period=2, attn_layer_offset=1, num_experts=1,
                      use_mamba_kernels=False, **LLAMA)  # fmt: skip


def make_other(folder, family, **fields):
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).save_pretrained(folder)
    return str(folder)


def test_of_a_hybrid_the_layers_with_attention_are_read_and_the_others_refused(tmp_path):
    checkpoint = layers.open(hybrid(tmp_path))
    whole = AutoModel.from_pretrained(tmp_path)
    assert same(checkpoint.load_layer(1), whole.layers[1])
    with pytest.raises(ModelError, match=r"layer 0.*: 1\."):
        checkpoint.load_layer(0)


def test_a_model_without_attention_is_refused(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 16}
    folder = make_other(tmp_path, "mamba", **sizes, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    with pytest.raises(ModelError, check=fault("no_attention"), match="Mamba"):
        layers.load_layer(folder, 0)


@pytest.mark.parametrize("index", [NUM_LAYERS, -NUM_LAYERS - 1])
def test_an_index_out_of_range_names_the_range(sharded, index):
    with pytest.raises(ModelError, check=fault("out_of_range"), match=f"0 to {NUM_LAYERS - 1}"):
        layers.load_layer(sharded, index)


@pytest.mark.parametrize("family", ["bert", "modernbert", "distilbert", "deberta-v2"])
def test_encoders_are_refused(tmp_path, family):
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    ids = dict.fromkeys(TOKENS, 0)
    config = AutoConfig.for_model(family, **sizes, num_attention_heads=4, **ids)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"encoder.*Choose a decoder"):
        layers.open(str(tmp_path))


TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def test_encoder_decoders_are_refused(copied):
    fields = {"d_model": 16, "d_ff": 16, "d_kv": 4, "num_layers": 1, "num_heads": 4}
    AutoConfig.for_model("t5", vocab_size=16, **fields).save_pretrained(copied)
    with pytest.raises(ModelError, match="encoder-decoder"):
        layers.open(str(copied))


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_quantized_checkpoints_are_refused(copied):
    edit(copied / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(ModelError, match=r"quantized \(bitsandbytes\).*bfloat16"):
        layers.open(str(copied))


def test_weights_that_are_integers_are_refused(sharded, tmp_path):
    folder = Path(renamed(sharded, tmp_path / "integers", str))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors")
    with pytest.raises(ModelError, check=fault("quantized"), match=name):
        layers.load_layer(str(folder), 1)


def test_pickles_are_refused_with_what_to_do(copied):
    for file in copied.glob("*.safetensors*"):
        file.unlink()
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(Refused, match=r"pickles only \(pytorch_model.bin\).*save_pretrained"):
        layers.open(str(copied))


def test_a_folder_with_a_vocabulary_only_is_refused(copied):
    for file in copied.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(ModelError, check=fault("no_weights")):
        layers.open(str(copied))


def test_a_checkpoint_without_layers_is_refused(copied, tmp_path):
    for file in copied.glob("*.safetensors*"):
        file.unlink()
    save_file({"model.embed_tokens.weight": torch.ones(64, 32)}, copied / "model.safetensors")
    with pytest.raises(ModelError, check=fault("no_layers")):
        layers.open(str(copied))


def shard_of(folder, name):
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


UP = "model.layers.1.mlp.up_proj.weight"


def test_a_shard_that_is_missing_is_named(copied):
    file = shard_of(copied, UP)
    file.unlink()
    with pytest.raises(ModelError, match=f"lacks {file.name}, which {INDEX} names"):
        layers.load_layer(str(copied), 1)
    layers.load_layer(str(copied), 2)  # of other shards


@pytest.mark.parametrize("kept", [-1, 200, 5])
def test_a_shard_that_was_cut_short_is_named_with_its_size(copied, kept):
    file = shard_of(copied, UP)
    content = file.read_bytes()[:kept]
    file.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{file.name}.* is damaged: {len(content)} bytes"):
        layers.load_layer(str(copied), 1)


@pytest.mark.parametrize("content", [b"\xff" * 300, b"\x10" + bytes(7) + b"no json at all, no, no"])
def test_a_shard_without_a_header_is_named(copied, content):
    file = shard_of(copied, UP)
    file.write_bytes(content)
    with pytest.raises(ModelError, check=fault("damaged"), match=file.name):
        layers.load_layer(str(copied), 1)


def test_an_index_that_is_damaged_is_named(copied):
    (copied / INDEX).write_text("{")
    with pytest.raises(ModelError, match=f"{INDEX} is damaged"):
        layers.open(str(copied))


def test_an_index_does_not_lead_out_of_the_folder(copied):
    edit(copied / INDEX, weight_map={UP: "../../elsewhere.safetensors"})
    with pytest.raises(ModelError, check=fault("outside")):
        layers.open(str(copied))


def test_a_layer_that_is_not_whole_is_refused_before_it_is_read(copied):
    weight_map = json.loads((copied / INDEX).read_text())["weight_map"]
    del weight_map[UP]
    edit(copied / INDEX, weight_map=weight_map)
    checkpoint = layers.open(str(copied))
    before = checkpoint.bytes_read
    with pytest.raises(ModelError, check=fault("incomplete"), match=UP):
        checkpoint.load_layer(1)
    assert checkpoint.bytes_read == before


def test_a_checkpoint_of_another_shape_than_its_config_is_refused(copied):
    edit(copied / "config.json", intermediate_size=40)
    with pytest.raises(ModelError, match=r"but \[40, 32\] by config.json"):
        layers.load_layer(str(copied), 1)


def test_a_token_that_the_model_does_not_embed_is_named(sharded):
    with pytest.raises(ModelError, match=r"tokens 0 to 63.*64"):
        layers.open(sharded).embedding_rows(torch.tensor([3, 64]))


def test_a_dtype_that_is_none_is_refused(sharded):
    with pytest.raises(ModelError, match="'int8'"):
        layers.load_layer(sharded, 0, dtype="int8")


def test_a_folder_is_of_the_revision_that_it_says(sharded, tmp_path):
    revision = layers.open(sharded).revision
    assert layers.open(sharded, revision=revision).revision == revision
    with pytest.raises(ModelError, check=fault("other_revision"), match=revision):
        layers.open(sharded, revision="main")


def test_code_in_a_checkpoint_is_not_run(copied):
    fields = {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"},
    }
    edit(copied / "config.json", **fields)
    (copied / "own.py").write_text("raise SystemExit('was run')")
    with pytest.raises(Refused, check=fault("foreign_code")):
        layers.open(str(copied))


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer.json"])
def test_folders_without_a_model_are_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    expected = "is an adapter" if name.startswith("adapter") else "has no config.json"
    with pytest.raises(ModelError, match=expected):
        layers.open(str(tmp_path))


def test_what_is_neither_a_folder_nor_a_hub_id_is_refused():
    with pytest.raises(ModelError, check=fault("unknown")):
        layers.open("no/such/folder")
