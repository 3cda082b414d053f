"""Tiny decoders of many families with random weights, saved as transformers saves them, in shards."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

NUM_LAYERS, VOCABULARY, WINDOW = 3, 64, 4
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    **TOKENS,
}
GPT2 = {"n_embd": 32, "n_layer": NUM_LAYERS, "n_head": 4, "n_positions": 64, **TOKENS}
PLAIN = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES = {  # a colon parts variants of one family
    "bloom": {"hidden_size": 32, "n_layer": NUM_LAYERS, "n_head": 4, **TOKENS},
    "cohere": LLAMA,
    "falcon": {**PLAIN, "multi_query": True, "parallel_attn": True, "hidden_dropout": 0.5},
    "falcon:alibi": {**PLAIN, "multi_query": False, "parallel_attn": False, "alibi": True},
    "falcon:new": {**PLAIN, "num_kv_heads": 2, "new_decoder_architecture": True},
    "gemma": {**LLAMA, "head_dim": 8},
    "gemma2": {**LLAMA, "head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": {**LLAMA, "head_dim": 8, "sliding_window": WINDOW, "layer_types": TYPES},
    "gpt2": {**GPT2, "scale_attn_by_inverse_layer_idx": True},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": NUM_LAYERS,
        "num_heads": 4,
        "max_position_embeddings": 64,
        "attention_types": [[["local"], NUM_LAYERS]],
        "window_size": WINDOW,
        **TOKENS,
    },
    "gpt_neox": PLAIN,
    "gpt_oss": {**LLAMA, "head_dim": 8, "num_local_experts": 4, "sliding_window": WINDOW},
    "gptj": {**GPT2, "rotary_dim": 4},
    "granite": {**LLAMA, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "llama": LLAMA,
    "llama:3": {**LLAMA, "rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True},
    "mistral": {**LLAMA, "sliding_window": WINDOW},
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 16,
        **TOKENS,
    },
    "phi": PLAIN,
    "phi3": LLAMA,
    "qwen2": {
        **LLAMA,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
    "qwen3": {**LLAMA, "head_dim": 8},
    "smollm3": {**LLAMA, "no_rope_layer_interval": 2},
    "stablelm": LLAMA,
    "starcoder2": {**LLAMA, "sliding_window": WINDOW},
}


def make(folder, name, shard="20KB", dtype=torch.float32, **fields):
    """Save a decoder with random weights, norms and biases too, and return its folder as a string."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.partition(":")[0], **(FAMILIES[name] | fields))
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return str(folder)
