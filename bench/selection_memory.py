"""What selecting a layer costs beside a forward pass that holds the whole model: peak memory and seconds.

python bench/selection_memory.py [--layers 16] [--width 1024] [--texts 200] [--rounds 3] [--threads 2]

The model is a Llama drawn at random and written to disk in shards. The peer loads it whole with AutoModel
and asks for all hidden states. Selection reads one layer at a time, the next ahead, and writes the states
of all tokens after each layer, so that it can be killed; all scores are part of its time. "states only" is
the streaming alone. Seconds are of the work, without imports, which both need; those of processors are
of all threads together, and grow little where others use the machine too.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Goal, in_turns, write

CLAIM = (
    "Selection runs over a model larger than the memory it is given: at most three layers, the embedding "
    "rows and the activations are held at once, at most 1.15 of the time of a forward pass that holds the "
    "whole model. A selection can be killed at any layer and goes on there."
)
OURS, STATES, PEER = (
    "graftlab select",
    "graftlab select, states only",
    "AutoModel, all hidden states",
)
FIGURES = SECONDS, PROCESSORS, MEMORY = "work (s)", "processors (s)", "peak over imports (MiB)"
IMPORTED = (  # whatever the work needs is imported before it begins: imports are not what is measured
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "sklearn.linear_model",
    "sklearn.metrics",
    "transformers.models.llama.modeling_llama",
    "graftlab.weights.layers.anatomy",
)
SHORTEST, LONGEST = 24, 56  # tokens of a text: sentences
VOCABULARY, CLASSES = 8000, 4


def model_config(layers: int, width: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, vocab_size=VOCABULARY,
        tie_word_embeddings=True,
    )  # fmt: skip


def make_model(folder: Path, layers: int, width: int) -> None:
    import torch
    from transformers import LlamaModel

    torch.manual_seed(0)
    LlamaModel(model_config(layers, width)).save_pretrained(folder, max_shard_size="200MB")


class Words:
    """A tokenizer of texts that are token ids."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(
        self,
        text: str,
        pair: str | None = None,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()][:max_length]}


def texts(count: int) -> tuple[list[str], list[int]]:
    import random

    draws = random.Random(0)
    labels = [i % CLASSES for i in range(count)]
    found = [
        " ".join(
            str(draws.randrange(3 + label, VOCABULARY, CLASSES))
            for _ in range(draws.randrange(SHORTEST, LONGEST))
        )
        for label in labels
    ]
    return found, labels


class Meter:
    """What the work takes from here on: seconds, seconds of processors, and memory over what is held."""

    def __init__(self) -> None:
        self.began = self._now()

    def read(self) -> dict[str, float]:
        figures = zip(FIGURES, self._now(), self.began, strict=True)
        return {name: after - before for name, after, before in figures}

    def _now(self) -> tuple[float, float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def ours(folder: Path, count: int, states_only: bool) -> dict[str, float]:
    import numpy as np

    from graftlab import registry
    from graftlab.selection import Config, examples, hidden_states, survey
    from graftlab.training import allocation
    from graftlab.weights import layers

    for module in IMPORTED:
        importlib.import_module(module)
    meter = Meter()
    found, labels = texts(count)
    checkpoint = layers.open(str(folder))
    with tempfile.TemporaryDirectory() as place:
        if states_only:
            tokens = hidden_states.tokenize(found, [None] * count, Words(), 128)
            stream = hidden_states.Stream(checkpoint, tokens, Path(place))
            for computed in stream.run(checkpoint.num_layers - 1):
                del computed
        else:
            vectors = np.random.default_rng(0).normal(size=(count, 384))
            seen = examples.Examples(
                found, [None] * count, np.array(labels), tuple("abcd"), vectors
            )
            facts = {"llm": "synthetic", "dataset": "synthetic"}
            request = survey.Request(
                checkpoint, Words(), seen, facts,
                lambda name: registry.find("scores", name), registry.names("scores"),
                registry.having("plots", "DRAWS_FROM", "selection"),
            )  # fmt: skip
            with allocation.kept():  # as `graftlab.runs.chosen_layer` does
                survey.carry_out(request, Config(samples=count), Path(place))
    return meter.read()


def peer(folder: Path, count: int) -> dict[str, float]:
    import torch
    from transformers import AutoModel

    from graftlab.selection import hidden_states

    for module in IMPORTED:
        importlib.import_module(module)
    meter = Meter()
    found, _ = texts(count)
    tokens = hidden_states.tokenize(found, [None] * count, Words(), 128)  # the same batches
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    pooled = []
    with torch.no_grad():
        for ids, mask in zip(tokens.ids, tokens.masks, strict=True):
            states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            weights = mask[:, :, None].float()
            pooled.append([(s * weights).sum(dim=1) / weights.sum(dim=1) for s in states[1:]])
    return meter.read()


def budget(folder: Path, count: int) -> float:
    """Return what may be held, in MiB: three layers, the embedding rows, and the activations.

    Activations: the states of all tokens, and for one batch what a layer makes of it (attention and
    the feed-forward part: queries, keys, values, output, and three of the inner width), twice over.
    """
    from graftlab.selection import hidden_states
    from graftlab.weights import layers

    checkpoint = layers.open(str(folder))
    tokens = hidden_states.tokenize(texts(count)[0], [None] * count, Words(), 128)
    config, width = checkpoint.config, checkpoint.hidden_size
    states = sum(ids.numel() for ids in tokens.ids) * width
    rows = max(len(ids.unique()) for ids in tokens.ids) * width
    batch = max(ids.numel() for ids in tokens.ids) * (6 * width + 3 * config.intermediate_size)
    layer = checkpoint.layer_bytes(0)
    return (3 * layer + 4 * (states + rows + 2 * batch)) / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turn", choices=("ours", "states", "peer", "make", "budget"))
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.turn == "make":
        make_model(chosen.folder, chosen.layers, chosen.width)
    elif chosen.turn == "budget":
        print(json.dumps({"budget (MiB)": budget(chosen.folder, chosen.texts)}))
    elif chosen.turn == "peer":
        print(json.dumps(peer(chosen.folder, chosen.texts)))
    elif chosen.turn:
        print(json.dumps(ours(chosen.folder, chosen.texts, chosen.turn == "states")))
    else:
        with tempfile.TemporaryDirectory() as made:
            sizes = ["--layers", str(chosen.layers), "--width", str(chosen.width)]
            mine = [
                sys.executable,
                __file__,
                "--folder",
                made,
                "--texts",
                str(chosen.texts),
                *sizes,
            ]
            subprocess.run([*mine, "--turn", "make"], check=True)
            said = subprocess.run([*mine, "--turn", "budget"], check=True, capture_output=True)
            allowed = json.loads(said.stdout.splitlines()[-1])["budget (MiB)"]
            megabytes = sum(p.stat().st_size for p in Path(made).glob("*.safetensors")) / 2**20
            turns = in_turns(
                {
                    label: lambda _, turn=turn: [*mine, "--turn", turn]  # type: ignore[misc]
                    for label, turn in ((OURS, "ours"), (STATES, "states"), (PEER, "peer"))
                },
                chosen.rounds,
                chosen.threads,
                warm_up=False,  # the model has just been written: its pages are in memory for all
            )
        kept = {
            label: [{key: turn[key] for key in FIGURES} for turn in found]
            for label, found in turns.items()
        }
        goals = [
            Goal(MEMORY, OURS, compare="value", at_most=round(allowed, 1)),
            Goal(SECONDS, OURS, PEER, at_most=1.15),
            Goal(SECONDS, STATES, PEER),
            Goal(PROCESSORS, OURS, PEER),
        ]
        settings = {
            "layers": chosen.layers, "width": chosen.width, "texts": chosen.texts,
            "model (MiB)": round(megabytes), "threads": chosen.threads,
        }  # fmt: skip
        write("selection_memory", CLAIM, kept, goals, settings)
