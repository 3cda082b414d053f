"""Small models in folders, as their authors would have published them: what the promises are tested on."""

from pathlib import Path
from typing import Any

from graftlab.backbones import _pretrained, tiny
from graftlab.contracts import Problem

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
LENGTH = 48


def text_model(folder: Path, kind: str) -> str:
    """Write a BERT without a head (`encoder`) or a Llama (`decoder`), with a tokenizer of bytes."""
    import transformers

    problem = Problem("tokens" if kind == "decoder" else "regression")
    tokenizer = tiny.load(tiny.Config(max_length=LENGTH), problem, seed=0).processor
    sizes = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
    if kind == "decoder":
        config: Any = transformers.LlamaConfig(**sizes, bos_token_id=2, eos_token_id=3)
    else:
        config = transformers.BertConfig(**sizes)
    _write(
        transformers.LlamaForCausalLM if kind == "decoder" else transformers.BertModel,
        config,
        folder,
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def image_model(folder: Path) -> str:
    """Write a ViT without a head, with its processor."""
    import transformers

    config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4)
    _write(transformers.ViTModel, config, folder)
    processor = tiny.load(tiny.Config(modality="images"), Problem("regression"), seed=0).processor
    processor.save_pretrained(folder)
    return str(folder)


def _write(model: Any, config: Any, folder: Path) -> None:
    import torch

    with _pretrained.quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model(config).save_pretrained(folder)
