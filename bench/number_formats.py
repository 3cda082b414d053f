"""How fast a processor multiplies matrices in float32, bfloat16 and float16, as `torch` does it here.

python bench/number_formats.py [--rounds 5]

A product of (1000, 576) and (576, 1536), as in a small language model, on one thread. Where the processor
has instructions for a format the ratios are near 1 or above: the note that graftlab gives is for the others.
"""

import argparse
import json
import sys
import time

from harness import Goal, in_turns, write

CLAIM = (
    "On a processor without instructions for bfloat16 and float16 a product of matrices in them takes many "
    "times as long as in float32, which `check`, `plan`, `run` and `embed` say."
)
FORMATS = ("float32", "bfloat16", "float16")
SHAPE = (1000, 576, 1536)
SECONDS = 3.0


def multiply(name: str) -> dict[str, float]:
    """Return the operations a second of a format, in billions."""
    import torch

    torch.set_num_threads(1)
    rows, inner, columns = SHAPE
    dtype = getattr(torch, name)
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    left @ right  # the first one also prepares
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        left @ right
        count += 1
    return {"GFLOPS": 2e-9 * rows * inner * columns * count / (time.perf_counter() - began)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", choices=FORMATS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.format:
        print(json.dumps(multiply(given.format)))
        sys.exit()
    child = [sys.executable, __file__, "--format"]
    contestants = {name: lambda _, name=name: [*child, name] for name in FORMATS}
    turns = in_turns(contestants, given.rounds, threads=1)
    goals = [Goal("GFLOPS", "float32", peer) for peer in FORMATS[1:]]
    write("number_formats", CLAIM, turns, goals, {"threads": 1, "shape": str(SHAPE)})
