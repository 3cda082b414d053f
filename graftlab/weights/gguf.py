"""A Llama in a GGUF file written anew as transformers has models: safetensors, config, tokenizer.

Blocks of 4 or 8 bits become the float32 numbers that they stand for, without loss. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

    from graftlab.contracts.arrays import Floats

# Shapes: I in features, O out features, H heads, D half of a head's width.

TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # the type of a token that is no text
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def convert(file: Path, folder: Path) -> None:
    """Write the model in a GGUF file into a folder that is there; config.json comes last.

    Raises:
        ModelError: it is no Llama, or its tokenizer is of a kind that is not known here.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    found = (fields.get("general.architecture"), fields.get("tokenizer.ggml.model"))
    if found != ("llama", "gpt2"):
        raise ModelError(f"{file} holds {found[0]} with a tokenizer {found[1]}, not llama and gpt2")
    tokenizer = _tokenizer(fields, file)
    config = _config(fields, {tensor.name for tensor in reader.tensors})
    _save_weights(reader, config, folder)
    tokenizer.save_pretrained(folder)
    _generation_config(config).save_pretrained(folder)
    config.save_pretrained(folder)


def _config(fields: Mapping[str, Any], tensors: set[str]) -> "LlamaConfig":
    import numpy as np
    from transformers import LlamaConfig

    def number(name: str) -> float:  # float32 in the file: 1e-5, not 9.999999747378752e-06
        return float(str(np.float32(fields[f"llama.{name}"])))

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
        tie_word_embeddings="output.weight" not in tensors,
        bos_token_id=fields.get(_id("bos")),
        eos_token_id=fields.get(_id("eos")),
        pad_token_id=fields.get(_id("pad")),
    )


def _id(name: str) -> str:
    return f"tokenizer.ggml.{SPECIAL[name]}_token_id"


def _generation_config(config: "LlamaConfig") -> "GenerationConfig":
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )


def _save_weights(reader: "GGUFReader", config: "LlamaConfig", folder: Path) -> None:
    import numpy as np
    from gguf import dequantize
    from safetensors.numpy import save_file

    grouped = config.num_key_value_heads
    assert grouped is not None
    heads = {"attn_q": config.num_attention_heads, "attn_k": grouped}
    weights: dict[str, NDArray[np.float32]] = {}
    for tensor in reader.tensors:
        *block, kind, _ = tensor.name.split(".")  # blk.0.attn_q.weight, token_embd.weight
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if kind in heads:
            weight = _halves(weight, heads[kind])
        place = f"model.layers.{block[1]}." if block else ""
        weights[f"{place}{TENSORS[kind]}.weight"] = np.ascontiguousarray(weight)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _halves(weight_OI: "Floats", heads: int) -> "Floats":
    """Return a projection whose heads rotate halves: in the file they rotate neighbouring pairs."""
    weight_HD2I = weight_OI.reshape(heads, -1, 2, weight_OI.shape[1])
    return weight_HD2I.swapaxes(1, 2).reshape(weight_OI.shape)


def _tokenizer(fields: Mapping[str, Any], file: Path) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    special = {
        f"{name}_token": tokens[fields[_id(name)]] for name in SPECIAL if _id(name) in fields
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_pairs(fields, file),
        chat_template=fields.get("tokenizer.chat_template"),
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **special,
    )


def _byte_pairs(fields: Mapping[str, Any], file: Path) -> "Tokenizer":
    """Return byte-level BPE that parts a text as the file says, before it merges.

    Raises:
        ModelError: it is parted in a way that is not known here.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    known = {"gpt-2": words, "smollm": pre_tokenizers.Sequence([digits, words])}
    if (pre := fields.get("tokenizer.ggml.pre")) not in known:
        raise ModelError(f"{file}: its tokenizer parts texts by {pre!r}, not {' or '.join(known)}")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = known[pre]
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return tokenizer
