"""All that wants a GPU, in eight minutes: speed in bf16, attention, packing, 4 bits, NCCL, memory, resuming.

python bench/on_gpu.py [--minutes 8] [--out bench/results/on_gpu.json] [--only LABEL ...]
python bench/on_gpu.py --tiny --out FILE    # the same on a CPU, with two layers: is the script right?

Nothing is downloaded: the Llama has random weights, its texts are sums in words. Each part is a process with
a limit; one that fails is recorded with its cause and the others go on, the most wanted first. The extras
`bench` and `quantized` bring trl and bitsandbytes.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import harness
from harness import RESULTS, Figures, Goal
from sft_settings import HELD_OUT, Settings
from sft_throughput import write_rows

HERE = Path(__file__).parent
CLAIM = (
    "On one GPU, in bfloat16: graftlab fine-tunes a Llama of a billion weights at least as fast as trl's "
    "SFTTrainer + PEFT and loses nothing to a bare PyTorch loop on the same batches; `graftlab plan` "
    "foresees the memory of its steps within 10 %; a run under NCCL and one that was killed and resumed have "
    "the bytes of the plain run. LoRA on all linear layers, random weights, sums in words, loss on the "
    "answers; one round."
)
OURS, BARE, TRL = "graftlab", "bare PyTorch loop on our batches", "trl + PEFT"
OURS_PACKED, TRL_PACKED = "graftlab, packed", "trl + PEFT, packing"
OURS_4BIT, TRL_4BIT = "graftlab, 4 bits", "trl + PEFT, 4 bits"
PLANS = ("plan: lora", "plan: full", "plan: lora, 4 bits")
RESUMED, LAUNCHED = "killed and resumed", "one process under torchrun"
OURS_FLASH, FLASH = "graftlab, flash_attention_2", {"attention": "flash_attention_2"}
RACE, ASK = "sft_contestants.py", "gpu_parts.py"
LENGTH = 1024
"""Tokens, which are bytes here: the longest text has some 900."""
SHORTEST_S = 15.0
"""A part is not begun with less time left: it would spend it on imports."""


class Part(NamedTuple):
    script: str
    name: str
    changes: Mapping[str, Any] = {}
    """Settings that differ from those of all."""
    limit_s: float = 60


PARTS = {
    OURS: Part(RACE, "graftlab"),
    BARE: Part(RACE, "bare_grouped"),
    TRL: Part(RACE, "trl"),
    PLANS[0]: Part(ASK, "plan"),
    RESUMED: Part(ASK, "resume", limit_s=90),
    LAUNCHED: Part(ASK, "launched", limit_s=90),
    OURS_PACKED: Part(RACE, "graftlab_packed"),
    TRL_PACKED: Part(RACE, "trl_packed"),
    "graftlab, padding_free": Part(RACE, "graftlab_padding_free"),
    OURS_4BIT: Part(RACE, "graftlab", {"bits": 4}),
    TRL_4BIT: Part(RACE, "trl", {"bits": 4}),
    OURS_FLASH: Part(RACE, "graftlab", FLASH),
    "trl + PEFT, padding_free, flash_attention_2": Part(RACE, "trl_padding_free", FLASH),
    "trl + PEFT, group_by_length": Part(RACE, "trl_grouped"),
    PLANS[1]: Part(ASK, "plan_full"),
    PLANS[2]: Part(ASK, "plan", {"bits": 4}),
    "graftlab, flex_attention": Part(RACE, "graftlab", {"attention": "flex_attention"}),
    "bare PyTorch loop": Part(RACE, "bare"),
}
SPEED = "tokens/s"
GOALS = [
    Goal(SPEED, OURS, TRL, at_least=1.0),
    Goal(SPEED, OURS, BARE, at_least=0.97),
    Goal(SPEED, OURS_PACKED, TRL_PACKED, at_least=1.0),
    Goal(SPEED, OURS_4BIT, TRL_4BIT, at_least=1.0),
    Goal("held-out loss", OURS, TRL, at_most=1.01),
    Goal("GPU memory (GiB)", OURS, TRL, at_most=1.05),
    *(Goal("error (%)", label, compare="value", at_most=10) for label in PLANS),
    Goal("same bytes", RESUMED, compare="value", at_least=1),
    Goal("same bytes", LAUNCHED, compare="value", at_least=1),
    Goal("NCCL", LAUNCHED, compare="value", at_least=1),
]
LARGE = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 32000,
}  # Llama 3.2 1B's shape, with a vocabulary of usual size
TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 300,
}  # multiples of 64, which 4 bits want


def write_model(folder: Path, sizes: Mapping[str, int]) -> None:
    """Write a Llama with random weights in bfloat16, and a tokenizer of bytes."""
    import torch
    import transformers

    from graftlab.backbones import tiny
    from graftlab.contracts import Problem

    tokenizer = tiny.load(tiny.Config(max_length=LENGTH), Problem("tokens"), seed=0).processor
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        **sizes, max_position_embeddings=LENGTH, pad_token_id=0, bos_token_id=2, eos_token_id=3
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)


def measure(
    parts: Mapping[str, Part], settings: Settings, until: float, threads: int
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Return the figures of the parts that came to an end, and for each other one why it has none."""
    done: dict[str, Figures] = {}
    failed: dict[str, str] = {}
    for label, part in parts.items():
        left = until - time.monotonic()
        if left < SHORTEST_S:
            failed[label] = "no time was left"
            continue
        told = json.dumps(asdict(replace(settings, **part.changes)))
        command = [sys.executable, str(HERE / part.script), part.name, told]
        try:
            done[label] = harness.run_child(command, threads, min(part.limit_s, left))
        except SystemExit as error:
            failed[label] = cause(str(error))
        print(f"{label}: {harness.in_short(failed.get(label, 'done'))}", flush=True)
    return done, failed


def can_be_told(goal: Goal, done: Mapping[str, Figures]) -> bool:
    """Return whether a goal's part, and its peer's, came to an end and have its figure."""
    return all(goal.figure in done.get(label, {}) for label in (goal.ours, goal.peer or goal.ours))


def cause(message: str) -> str:
    """Return how a child ended and the last lines of what it said, without the folders of this machine."""
    _, _, text = message.partition("\n")  # the command
    text = re.sub(r"(?<![\w.~])(?:~|/[\w.+-]+)?(?:/[\w.+-]+)*/(?=[\w.+-])", "", text)
    ended, *said = [line for line in text.splitlines() if line.strip()]
    return "\n".join([ended.rstrip(":"), *said[-8:]])


def described(threads: int) -> dict[str, Any]:
    """Return the machine with its GPU, asked in a process that then lets go of it."""
    asked = harness.run_child([sys.executable, str(HERE / ASK), "device", "{}"], threads, 60)
    found: dict[str, Any] = {k: v for k, v in asked.items() if isinstance(v, str)}
    return harness.machine(threads) | found


def main(given: argparse.Namespace) -> None:
    until = time.monotonic() + 60 * given.minutes
    machine = described(given.threads)
    if machine["gpu"] == "none" and not given.tiny:
        raise SystemExit("no GPU was found: --tiny tries the script on the CPU")
    sizes, rows, held_out = (TINY, 24, 8) if given.tiny else (LARGE, 640, HELD_OUT)
    parts = {label: part for label, part in PARTS.items() if label in (given.only or PARTS)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", sizes)
        write_rows(folder, None, rows, held_out)
        model = str(folder / "model")
        settings = Settings(model, name, rows, max_length=LENGTH, precision="bf16")
        done, failed = measure(parts, settings, until, given.threads)
    if not done:
        raise SystemExit("no part came to an end:\n" + json.dumps(failed, indent=1))
    result = {
        "name": "on_gpu",
        "claim": CLAIM,
        "settings": settings.public() | {"held out": held_out, "minutes": given.minutes} | sizes,
        "machine": machine,
        "goals": [goal._asdict() for goal in GOALS if can_be_told(goal, done)],
        "turns": {label: [figures] for label, figures in done.items()},
        "failed": failed,
    }
    harness.keep(result, given.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="two layers, 24 rows: for a CPU")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "on_gpu.json")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    given = parser.parse_args()
    if given.out.parent == RESULTS and (given.tiny or given.only):
        parser.error("a trial is no result: name another file with --out")
    return given


if __name__ == "__main__":
    main(arguments())
