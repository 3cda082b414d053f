"""One layer of a model of 1.2 billion parameters, beside loading the model to take the layer out of it.

python bench/pifi_load.py [--rounds 5] [--threads 2] [--dir DIR]

The model is synthetic (the shape of Llama 3.2 1B, bfloat16, shards of four layers): 2.5 GB, written under
--dir and deleted afterwards; the hub is a server on this machine. DIR needs 8 GB: every turn over HTTP
begins with an empty cache, and the whole model is kept there until its turn is over.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import Goal, in_turns, write
from range_server import MODEL, serving

CLAIM = (
    "One layer of a model, ready to be plugged in, without the rest of it. The peer is "
    "`AutoModel.from_pretrained` of the whole model, of which the layer is then used (as the source of "
    "PiFi does). Both in float32, ready once a batch of 32 vectors has "
    "passed; imports are not counted in it. `read` is what was read "
    "from the folder (of the peer, which maps its files: their size) or sent by the hub; folders are read "
    "with a cold cache, as far as the kernel heeds the advice; over HTTP both begin with nothing "
    "fetched, and keep what they fetch. In pooled mode the query and key matrices stay unread."
)
CONFIG = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
LAYER, BATCH, LAYERS_PER_SHARD = 11, 32, 4
ROOM = 8 * 10**9  # bytes: the model twice, one shard in the making, and the layer
OURS, POOLED, PEER = "one layer, folder", "one layer in pooled mode, folder", "whole model, folder"
OURS_HTTP, PEER_HTTP = "one layer, HTTP", "whole model, HTTP"
KINDS = {OURS: "layer", POOLED: "pooled", PEER: "whole", OURS_HTTP: "layer", PEER_HTTP: "whole"}
READ, SHARE, READY = "read (MB)", "read / the layer's tensors", "ready (s)"
GOALS = [
    Goal(READ, PEER_HTTP, OURS_HTTP, at_least=10),
    Goal(SHARE, OURS, compare="value", at_most=1.01),
    Goal(SHARE, OURS_HTTP, compare="value", at_most=1.01),
    Goal(READY, PEER, OURS),
    Goal(READY, PEER_HTTP, OURS_HTTP),
    Goal("peak memory (MiB)", PEER, OURS),
    Goal("peak memory (MiB)", PEER_HTTP, OURS_HTTP),
]


def make(folder: Path) -> None:
    """Write the model, one shard in memory at a time."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel, LlamaConfig

    config = LlamaConfig(**CONFIG, dtype="bfloat16", architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in AutoModel.from_config(config).state_dict().items()}
    shards: dict[int, list[str]] = {}
    for name in shapes:
        number = 1 + int(name.split(".")[1]) // LAYERS_PER_SHARD if ".layers." in f".{name}" else 0
        shards.setdefault(number, []).append(name)
    weight_map = {}
    for number, names in shards.items():
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        generator = torch.Generator().manual_seed(number)
        tensors = {}
        for name in names:
            drawn = torch.empty(shapes[name], dtype=torch.bfloat16).normal_(generator=generator)
            tensors[f"model.{name}"] = drawn.mul_(0.02).add_(1.0 if "norm" in name else 0.0)
            weight_map[f"model.{name}"] = file
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    os.sync()  # or its pages cannot be dropped


def contestant(kind: str, model: str, folder: Path) -> dict[str, float]:
    """Return the figures of one turn: a layer of `model` (a folder or hub id), and a batch through it."""
    import torch
    from transformers import AutoModel
    from transformers.models.llama import modeling_llama  # noqa: F401  before the clock runs

    from graftlab.weights import layers
    from graftlab.weights.layers import expert_stacks, layer  # noqa: F401  likewise

    remote = model == MODEL
    files = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    for path in files if not remote else ():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    vectors = torch.randn(BATCH, CONFIG["hidden_size"], generator=torch.Generator().manual_seed(0))
    before, start = sent() if remote else 0, time.perf_counter()
    with torch.no_grad():
        if kind == "whole":
            whole = AutoModel.from_pretrained(model, dtype="float32").eval()
            cosine, sine = whole.rotary_emb(vectors, torch.zeros(1, 1))
            after = whole.layers[LAYER](vectors[:, None], position_embeddings=(cosine, sine))[:, 0]
            read = sum(path.stat().st_size for path in files)
        else:
            checkpoint = layers.open(model)
            after = checkpoint.load_layer(LAYER, pooled=kind == "pooled").pooled(vectors)
            read = checkpoint.bytes_read
    seconds = time.perf_counter() - start
    read = sent() - before if remote else read
    size = layers.open(str(folder)).layer_bytes(LAYER, pooled=kind == "pooled")
    return {
        READ: read / 1e6,
        SHARE: read / size,
        READY: seconds,
        "sum": float(after.double().sum()),
    }


def sent() -> int:
    with urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/sent") as answer:
        return int(answer.read())


def measure(folder: Path, rounds: int, threads: int) -> dict[str, list[dict[str, float]]]:
    """Return every round's figures; the result of the layer is the same for all, and left out."""

    def command(label: str) -> Sequence[str]:
        model = MODEL if "HTTP" in label else str(folder)
        return [sys.executable, __file__, "--turn", KINDS[label], model, str(folder)]

    contestants = {label: lambda _, label=label: command(label) for label in KINDS}
    turns = in_turns(contestants, rounds, threads)
    sums = [turn.pop("sum") for rows in turns.values() for turn in rows]
    assert max(sums) - min(sums) < 1e-3 * abs(sums[0]), sums
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    if shutil.disk_usage(given.dir).free < ROOM:
        parser.error(
            f"{given.dir} has less than 8 GB free: name a folder on a larger disk with --dir"
        )
    with tempfile.TemporaryDirectory(dir=given.dir) as place:
        folder = Path(place) / "model"
        folder.mkdir()
        # in a process of its own: a child's peak memory starts from its parent's
        subprocess.run([sys.executable, __file__, "--make", str(folder)], check=True)
        with serving(folder) as address:
            settings = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
            os.environ |= settings | {
                "GRAFTLAB_BENCH_DIR": place,
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            }
            turns = measure(folder, given.rounds, given.threads)
    shape: dict[str, Any] = {"layers": CONFIG["num_hidden_layers"], "parameters": "1.24 billion"}
    shape["load average"] = round(os.getloadavg()[2])  # what else the machine did: times suffer
    write("pifi_load", CLAIM, turns, GOALS, shape | {"threads": given.threads})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--turn"]:
        kind, model, folder = sys.argv[2:]
        with tempfile.TemporaryDirectory(dir=os.environ["GRAFTLAB_BENCH_DIR"]) as home:
            os.environ["HF_HOME"] = home  # before huggingface_hub is imported
            figures = contestant(kind, model, Path(folder))
        print(json.dumps(figures))
    else:
        main()
