"""What a step of JELLY costs beside one of peft's LoRA, and what the switch of a 7B model's layers takes.

python bench/jelly_step.py [--rounds 5] [--steps 10] [--switch-rounds 3]

Steps: one thread, models with the same random weights take turns after every step, and what is compared
is the processor time of a step, paired, so that others on the machine do not count. Memory is the
highest sum of what torch has allocated since the step's beginning: activations, gradients and whatever
is in between, without weights and optimizer, which would only make the ratios look better. Every
allocation is counted, by torch's own profiler.

The switch: two threads, one layer in memory at a time, wall time of the switch alone.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

from harness import Goal, in_turns, write

RANK, BATCH, LENGTH = 8, 8, 128
SIZES = {"6 x 384, as MiniLM": (6, 384, 12, 1536), "3 x 1024": (3, 1024, 16, 4096)}
"""Blocks, width, heads and width inside the feed-forward part of a BERT."""
TARGETS: dict[str, Any] = {
    "q, k, v, o": ["query", "key", "value", "attention.output.dense"],
    "all linear layers": r".*encoder\.layer\.\d+\..*(query|key|value|dense)",
}
LORA, SEQUENTIAL, PARALLEL, OBVIOUS = "LoRA", "sequential", "parallel", "sequential by autograd"

WIDE, INNER, BLOCKS = 4096, 11008, 32  # Llama-2-7B
LAYERS = {
    "q, k, v, o": {(WIDE, WIDE): 4},
    "all linear layers": {(WIDE, WIDE): 4, (WIDE, INNER): 2, (INNER, WIDE): 1},
}
"""(in, out): how many there are in each block."""
METHODS = ("exact", "tip", "tip_preserve", "merge_reinit", "none")

STEP_CLAIM = (
    "A sequential step of JELLY takes at most 1.05 times the time of LoRA's at the same rank and targets, "
    "in at most 1.02 times the memory; a parallel step is LoRA's. `sequential by autograd` is the same "
    "layer as one would write it, without keeping x in the place of W x. Rank 8, batches of 8 x 128 tokens, "
    "float32; processor time, medians of paired steps; memory beside weights and optimizer."
)
SWITCH_CLAIM = (
    "The layers of a model as large as Llama-2-7B (bfloat16, random weights, one in memory at a time) switch "
    "in under a minute on two cores."
)


def plain(size: str) -> Any:
    """Return a BERT of this size; the same random weights every time."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    blocks, width, heads, inner = SIZES[size]
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=inner,
        num_hidden_layers=blocks, vocab_size=1000,
    )  # fmt: skip
    return BertForSequenceClassification(config).requires_grad_(False)


def adapted(contestant: str, size: str, targets: str) -> Any:
    """Return the model as one contestant trains it."""
    from peft import LoraConfig, get_peft_model
    from torch import nn

    from graftlab.methods.jelly.peft_config import JellyConfig
    from graftlab.methods.jelly.tuner import layers

    model = plain(size)
    chosen = TARGETS[targets]
    if contestant == LORA:
        config: Any = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=chosen)
    else:
        mode = "parallel" if contestant == PARALLEL else "sequential"
        config = JellyConfig(r=RANK, alpha=RANK, mode=mode, target_modules=chosen)
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "jelly_B" in name:  # zeros are not what a training is about
            nn.init.normal_(parameter, std=0.01)
    if contestant == OBVIOUS:
        for name, layer in layers(model).items():
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, obvious(layer))
    return model.train()


def obvious(layer: Any) -> Any:
    """Return JELLY's sequential layer as one would write it."""
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import linear

    class Obvious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = layer.get_base_layer()
            self.a, self.b = layer.jelly_A["default"], layer.jelly_B["default"]
            self.scaling = layer.scaling["default"]

        def forward(self, x: Tensor) -> Tensor:
            h = linear(x, self.base.weight)
            return h + self.base.bias + linear(linear(h, self.a), self.b) * self.scaling

    with torch.no_grad():
        return Obvious()


def steps(size: str, targets: str, count: int) -> dict[str, float]:
    """Return times and memory of all contestants, whose steps take turns."""
    import torch

    names = [LORA, SEQUENTIAL, PARALLEL, OBVIOUS]
    models = {name: adapted(name, size, targets) for name in names}
    state = models[LORA].base_model.model.bert.embeddings.state_dict()
    for model in models.values():
        model.base_model.model.bert.embeddings.load_state_dict(state, assign=True)
    optimizers = {
        name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
        for name, model in models.items()
    }
    ids = torch.randint(0, 1000, (BATCH, LENGTH))

    def step(name: str) -> float:
        torch.manual_seed(1)
        start = time.process_time()
        models[name](input_ids=ids).logits.square().mean().backward()
        optimizers[name].step()
        optimizers[name].zero_grad(set_to_none=True)
        return time.process_time() - start

    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = {}
    for name in names:
        step(name)  # makes the optimizer's moments
        memory[name] = most_allocated(lambda name=name: step(name))
    order = list(names)
    for _ in range(count):
        for name in order:
            seconds[name].append(step(name))
        order.append(order.pop(0))
    found = {f"{LORA} (ms)": 1000 * statistics.median(seconds[LORA])}
    found[f"{LORA} (MiB)"] = memory[LORA] / 2**20
    for name in names[1:]:
        pairs = zip(seconds[name], seconds[LORA], strict=True)
        found[f"{name} / {LORA}, time"] = statistics.median(a / b for a, b in pairs)
        found[f"{name} / {LORA}, memory"] = memory[name] / memory[LORA]
    return found


def most_allocated(work: Any) -> float:
    """Return the highest sum of bytes allocated and not freed since `work` began."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return float(most)


def switches(kind: str) -> dict[str, float]:
    """Return for each method the seconds that all blocks take, one layer after the other."""
    import logging

    logging.disable()
    numbers = BLOCKS * sum(i * o * count for (i, o), count in LAYERS[kind].items())
    found = {"weights (billions)": numbers / 1e9}
    square = all(i == o for i, o in LAYERS[kind])
    for method in METHODS:
        if square or method != "none":
            found[f"{method} (s)"] = sum(switch(method, *sides, BLOCKS * count)
                                         for sides, count in LAYERS[kind].items())  # fmt: skip
    return found


def switch(method: str, i: int, o: int, count: int) -> float:
    """Return the seconds that the switch of so many layers (o, i) takes."""
    import torch
    from peft import get_peft_model
    from torch import nn

    from graftlab.methods.jelly.plan import Plan
    from graftlab.methods.jelly.switch import Switch
    from graftlab.methods.jelly.tuner import JellyConfig

    plan = Plan(mode="seq2par", switch_step=1, switch_method=method)
    base = nn.Linear(i, o, bias=False, dtype=torch.bfloat16)  # one for all: drawing takes longest
    seconds = 0.0
    for _ in range(count):
        config = JellyConfig(r=RANK, alpha=RANK, mode="seq2par", target_modules=["layer"])
        model = get_peft_model(nn.ModuleDict({"layer": base}), config)
        layer: Any = model.get_submodule("base_model.model.layer")
        nn.init.normal_(layer.jelly_B["default"])
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        start = time.perf_counter()
        Switch(model, "default", plan, 10, 5)(1, optimizer)
        seconds += time.perf_counter() - start
    return seconds


def child(what: str, *given: Any) -> list[str]:
    return [sys.executable, __file__, "--child", json.dumps([what, *given])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--switch-rounds", type=int, default=3)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, *arguments = given.child
        print(json.dumps((switches if what == "switches" else steps)(*arguments)))
        return
    if given.rounds:
        cases = {f"{size}; {targets}": (size, targets) for size in SIZES for targets in TARGETS}
        contestants = {
            label: lambda _, case=case: child("steps", *case, given.steps)
            for label, case in cases.items()
        }
        turns = in_turns(contestants, given.rounds, threads=1, warm_up=False)
        goals = [
            Goal(f"{mode} / {LORA}, {figure}", label, compare="value", at_most=most)
            for label in cases
            for mode, figure, most in (
                (SEQUENTIAL, "time", 1.05), (SEQUENTIAL, "memory", 1.02),
                (PARALLEL, "time", 1.02), (PARALLEL, "memory", 1.0),
                (OBVIOUS, "time", None), (OBVIOUS, "memory", None),
            )
        ]  # fmt: skip
        settings = {"rank": RANK, "batch": BATCH, "tokens": LENGTH, "steps": given.steps}
        write("jelly_step", STEP_CLAIM, without(turns), goals, {**settings, "threads": 1})
    if given.switch_rounds:
        kinds = {kind: lambda _, kind=kind: child("switches", kind) for kind in LAYERS}
        turns = without(in_turns(kinds, given.switch_rounds, threads=2, warm_up=False))
        goals = [
            Goal(f"{method} (s)", "q, k, v, o", compare="value", at_most=60.0) for method in METHODS
        ]
        write("jelly_switch", SWITCH_CLAIM, turns, goals, {"rank": RANK, "threads": 2})


def without(turns: Any) -> Any:
    """Drop what is the whole child's, several models large, and says nothing of one."""
    whole = ("seconds", "peak memory (MiB)")
    return {
        label: [{k: v for k, v in row.items() if k not in whole} for row in rows]
        for label, rows in turns.items()
    }


if __name__ == "__main__":
    main()
