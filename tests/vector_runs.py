"""Finished runs of a small model that reads vectors, and the small embedding model that made them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from finished_runs import finish
from written_runs import CHAT

from graftlab.backbones import tiny
from graftlab.contracts import Problem
from graftlab.data.vectors import store
from graftlab.encoders import embedder
from graftlab.rundir.run import Run
from graftlab.tasks.elm import tree
from graftlab.testing import examples

LENGTH = 16  # tokens of a text that the embedding model reads
TEXTS = ("a b c", "d e f", "g h a b", "c", "b b d e", "h g f e d", "e a", "f c h", "d", "a g c e")


def make_embedder(folder: Path) -> str:
    """Save a small embedding model that does not say how it pools; return its folder."""
    folder.mkdir(parents=True)
    return examples.text_model(folder, "encoder")


def make_llm(folder: Path) -> str:
    """Save a small language model with a chat template; return its folder."""
    tokenizer = tiny.load(tiny.Config(max_length=256), Problem("tokens"), seed=0).processor
    tokenizer.chat_template = CHAT
    config = transformers.LlamaConfig(
        **examples.SIZES,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        bos_token_id=2,
        initializer_range=0.5,  # of small weights all that is read comes to the same
        eos_token_id=3,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def opened(folder: Path) -> embedder.Embedder:
    """Return the embedding model as runs have asked it, made where it is not there."""
    if not folder.is_dir():
        make_embedder(folder)
    return embedder.load(embedder.Request(str(folder), pooling="mean", max_seq_length=LENGTH))


def make_vectors(folder: Path, embedding_model: Path, known: bool = True) -> Path:
    """Write vectors of texts and rows about them; what they were made with only if it is to be `known`."""
    model = opened(embedding_model)
    for number, (split, count) in enumerate({"train": 10, "validation": 3, "test": 3}.items()):
        (folder / split).mkdir(parents=True)
        texts = [f"{TEXTS[i]} {'h ' * number}".strip() for i in range(count)]
        origin = model.origin if known else None
        store.write(folder / split / tree.VECTORS, model.encode(texts, 4), origin)
        rows = [
            {
                "task_type": ("category", "summary")[i % 2],
                "embedding_file_idx": i,
                "query": "What? ",
                "response": texts[i][:1],
            }
            for i in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / split / tree.ROWS).write_text(lines)
    return folder


def write_split(folder: Path, vectors: Any, rows: list[dict[str, Any]]) -> None:
    """Write the vectors and the rows of one split."""
    folder.mkdir(parents=True)
    store.write(folder / tree.VECTORS, vectors)
    (folder / tree.ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def finish_reader(folder: Path, name: str = "reader", **changes: Any) -> Run:
    """Carry out a run of four steps in `folder`, with its own `vectors` unless the task says other."""
    data = folder / "vectors"
    if not data.is_dir():
        make_vectors(data, folder / "embedder")
    task = {
        "kind": "elm",
        "files": None,
        "data_dir": str(data),
        "metrics": ["perplexity"],
        "generation": {"max_new_tokens": 8},
        **changes.pop("task", {}),
    }
    method = {"name": "elm", "hidden": 8, **changes.pop("method", {})}
    backbone = {"model": "tiny", "kind": "tiny", "max_length": 256, "width": 16}
    return finish(
        folder, method, name=name, backbone=changes.pop("backbone", backbone), task=task, **changes
    )
