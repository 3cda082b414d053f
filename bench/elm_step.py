"""What a training step of ELM takes beside a bare forward and backward pass of its frozen language model.

python bench/elm_step.py [--rounds 5] [--steps 2] [--size "30 x 576, as SmolLM2 135M"]

One thread; both have the same random weights and batch, and take turns after every step. What is compared is
processor time, paired, and the highest sum of what torch has allocated since the step's beginning, as in
`jelly_step.py`. The bare pass has its `inputs_embeds` ready and their gradient as its outcome; ours makes
them, and its adapter takes an optimizer's step. Stopped, it goes on after the last turn.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

from harness import RESULTS, Goal, Journal, in_turns, write
from jelly_step import most_allocated, without

BATCH, LENGTH, ANSWER, WIDTH, HIDDEN = 8, 96, 32, 384, 1024
SIZES = {
    "30 x 576, as SmolLM2 135M": (30, 576, 9, 3, 1536, 49152),
    "4 x 256": (4, 256, 4, 2, 768, 8192),
}
"""Blocks, width, heads of queries and of keys, width inside the feed-forward part, vocabulary."""
BARE, OURS = "bare", "elm"
CLAIM = (
    "A training step of ELM takes at most 1.05 times a bare forward and backward pass of the frozen language "
    "model on `inputs_embeds` of the same batch, in at most 1.03 times the memory: the LLM has no gradient "
    "and no optimizer state. Both see the language head for the 32 tokens of the answer alone. Batches of "
    "8 x 96 tokens, vectors of 384 numbers, an adapter of 1,024 hidden values, float32; processor time, "
    "medians of paired steps; memory beside weights and optimizer."
)


def language_model(size: str) -> Any:
    """Return a frozen Llama of this size; the same random weights every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    blocks, width, heads, keys, inner, vocabulary = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, num_key_value_heads=keys,
        intermediate_size=inner, vocab_size=vocabulary, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).requires_grad_(False).train()


def batch(vocabulary: int) -> dict[str, Any]:
    """Return prompts with the place of a vector, and answers."""
    import torch

    ids = torch.randint(5, vocabulary, (BATCH, LENGTH))
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    places = torch.zeros_like(ids)
    places[:, 1] = 1
    vectors = torch.nn.functional.normalize(torch.randn(BATCH, WIDTH), dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**inputs, "labels": labels, "vectors": vectors, "vector_mask": places}


def steps(size: str, count: int) -> dict[str, float]:
    """Return time and memory of both, whose steps take turns."""
    import torch

    from graftlab.contracts import Backbone, Problem, Setting, Training
    from graftlab.methods import elm
    from graftlab.tasks._logits import at_labels, cross_entropy

    llm, made = language_model(size), batch(SIZES[size][-1])
    vectors = {"width": WIDTH, "num_tokens": 1, "origin": None}
    setting = Setting(0, 10, 10, Problem("tokens"), lambda: iter(()), vectors=vectors)
    backbone = Backbone(llm, "decoder", None, (), LENGTH, {"source": "random", "sha256": {}})
    attached = elm.attach(backbone, elm.Config(hidden=HIDDEN), setting)
    model = attached.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for hook in attached.hooks:
        hook.on_train_start(Training(model, optimizer, 10, 10, lambda: None))
    labels = made["labels"]
    given = {name: tensor for name, tensor in made.items() if name != "labels"}
    embedded = llm.get_input_embeddings()(made["input_ids"])

    def bare() -> None:
        tokens = embedded.detach().requires_grad_(True)
        inputs = {"inputs_embeds": tokens, "attention_mask": made["attention_mask"]}
        cross_entropy(*at_labels(llm, inputs, labels)).mean().backward()

    def ours() -> None:
        cross_entropy(*at_labels(model, given, labels)).mean().backward()
        optimizer.step()
        for hook in attached.hooks:
            hook.after_optimizer_step(1)
        optimizer.zero_grad(set_to_none=True)

    works = {BARE: bare, OURS: ours}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    memory = {}
    for name, work in works.items():
        work()  # makes the optimizer's moments
        memory[name] = most_allocated(work)
    order = list(works)
    for _ in range(count):
        for name in order:
            start = time.process_time()
            works[name]()
            seconds[name].append(time.process_time() - start)
        order.append(order.pop(0))
    pairs = zip(seconds[OURS], seconds[BARE], strict=True)
    return {
        f"{BARE} (ms)": 1000 * statistics.median(seconds[BARE]),
        f"{BARE} (MiB)": memory[BARE] / 2**20,
        "time / bare": statistics.median(a / b for a, b in pairs),
        "memory / bare": memory[OURS] / memory[BARE],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", action="append", choices=SIZES)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(steps(*given.child)))
        return
    contestants = {
        size: lambda _, size=size: [
            sys.executable, __file__, "--child", json.dumps([size, given.steps])
        ]
        for size in given.size or SIZES
    }  # fmt: skip
    settings = {
        "batch": BATCH, "tokens": LENGTH, "hidden": HIDDEN, "steps": given.steps, "threads": 1
    }  # fmt: skip
    journal = Journal(RESULTS / "elm_step.partial", settings)
    turns = in_turns(contestants, given.rounds, threads=1, warm_up=False, journal=journal)
    goals = [
        Goal(f"{figure} / bare", size, compare="value", at_most=most)
        for size in contestants
        for figure, most in (("time", 1.05), ("memory", 1.03))
    ]
    write("elm_step", CLAIM, without(turns), goals, settings)
    journal.end()


if __name__ == "__main__":
    main()
