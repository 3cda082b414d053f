"""A small decoder with a tokenizer on disk, texts that tell their class, and a run file that plugs one in."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [
    "<pad>",
    "<s>",
    "<unk>",
    "good",
    "bad",
    "odd",
    "film",
    "a",
    "very",
    "so",
    "it",
    "was",
    "the",
]
CLASSES = ("good", "bad", "odd")
NUM_LAYERS = 4


def write_model(folder, num_layers=NUM_LAYERS, shards=True):
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(WORDS),
                hidden_size=24,
                intermediate_size=40,
                num_attention_heads=4,
                num_key_value_heads=2,
                num_hidden_layers=num_layers,
                initializer_range=0.3,
                tie_word_embeddings=True,
            )
        )
    model.save_pretrained(folder, max_shard_size="20KB" if shards else "5GB")
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def rows(count, start=0):
    """Return rows whose word in the middle is their class."""
    return [
        {"text": f"{'so ' * (i % 5)}the film {i} was {CLASSES[i % 3]}", "label": CLASSES[i % 3]}
        for i in range(start, start + count)
    ]


def write_rows(folder, found):
    folder.mkdir(parents=True, exist_ok=True)
    for split, split_rows in found.items():
        lines = "".join(json.dumps(row) + "\n" for row in split_rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


def write_run(folder, **method):
    """Return a run file of PiFi with `layer: auto`, its donor and its rows in `folder`."""
    write_model(folder / "llm")
    data = {"train": rows(60), "validation": rows(12, 100), "test": rows(12, 200)}
    write_rows(folder / "data", data)
    selection = {"samples": 30, "components": 4, "top_components": 2, "folds": 3, "resamples": 20}
    selection["normalise"] = (
        "none"  # by 30 rows few scores tell layers apart, and have a vote otherwise
    )
    selection |= method.pop("selection", {})
    file = {
        "name": "plugged",
        "backbone": {"kind": "tiny", "width": 16, "layers": 1},
        "task": {"kind": "classification", "data_dir": str(folder / "data")},
        "method": {
            "name": "pifi", "llm": str(folder / "llm"), "layer": "auto", "selection": selection, **method,
        },
        "training": {"max_steps": 3, "batch_size": 6, "save_every": 1},
        "paths": {"runs": str(folder / "runs"), "cache": str(folder / "cache")},
    }  # fmt: skip
    path = folder / "plugged.yaml"
    path.write_text(json.dumps(file))
    return path
