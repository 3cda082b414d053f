"""What `analysis:` of a run file costs: a measured step beside steps of the same run without it.

python bench/gradient_tables.py [--rounds 3] [--steps 16] [--layers 6] [--batch-size 16] [--threads 1]

A round is a run without and a run with a measurement at every second step, one after the other, on a model of
MiniLM's widths with random weights and a mixture of two tasks of some 60 tokens a text, in processor time of
the whole process: what else the machine does counts for neither. The share at the default interval is the
difference of the medians over two hundred plain steps. Fewer examples a step make it larger.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Goal, write

CLAIM = (
    "`analysis: {every: 200}` takes at most 2 % of a run's time, with cosines between the tasks of a "
    "mixture: LoRA, and full fine-tuning, which has copies of whole gradients to keep."
)
METHODS = ("lora", "full")
SHARE = "share at the default interval (%)"
SHAPE = {
    "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536,
    "vocab_size": 261, "max_position_embeddings": 96,
}  # fmt: skip


def make(folder: Path, layers: int, batch_size: int) -> dict[str, Any]:
    """Save the model and two tasks; return the run file of both."""
    import torch
    import transformers

    from graftlab.backbones import tiny
    from graftlab.contracts import Problem

    torch.manual_seed(0)
    config = transformers.BertConfig(**SHAPE, num_hidden_layers=layers)
    transformers.BertModel(config).save_pretrained(folder / "model")
    made = tiny.load(tiny.Config(max_length=96), Problem("classes", ("a", "b")), seed=0)
    made.processor.save_pretrained(folder / "model")
    draw = random.Random(0)
    for name in ("one", "two"):
        (folder / name).mkdir()
        for split, count in (("train", 200), ("validation", 2), ("test", 2)):
            rows = [
                f"{''.join(draw.choices('abcdefgh ', k=62))},{'ab'[n % 2]}" for n in range(count)
            ]
            text = "text,label\n" + "\n".join(rows) + "\n"
            (folder / name / f"{split}.csv").write_text(text, encoding="utf-8")
    return {
        "backbone": {"model": str(folder / "model")},
        "task": {
            "kind": "mixture", "data_dir": str(folder), "each": {"kind": "classification"},
            "tasks": [{"as": "one"}, {"as": "two"}],
        },
        "training": {"batch_size": batch_size, "evaluate_every": 0, "logging_every": 0, "save_every": 0},
    }  # fmt: skip


def seconds(folder: Path, values: dict[str, Any], steps: int) -> list[float]:
    """Carry out a run; return the processor time of each step."""
    from graftlab import config, runfile
    from graftlab.runs import session
    from graftlab.training.step import Stepper

    taken: list[float] = []
    plain = Stepper.step

    def timed(self: Stepper, step: int, learning_rate: float) -> Any:
        began = time.process_time()
        done = plain(self, step, learning_rate)
        taken.append(time.process_time() - began)
        return done

    path = folder / "run.yaml"
    given = config.merge(values, {"training": {"max_steps": steps}})
    path.write_text(json.dumps(given), encoding="utf-8")
    Stepper.step = timed  # type: ignore[method-assign]
    try:
        session.run(
            runfile.resolve(config.read(path)),
            Path(tempfile.mkdtemp(dir=folder)) / "run",
            options=session.Options(quiet=True),
        )
    finally:
        Stepper.step = plain  # type: ignore[method-assign]
    return taken


def compared(folder: Path, values: dict[str, Any], steps: int) -> dict[str, float]:
    """Return the medians of a run without and of one with measured steps, the first two steps left out."""
    from graftlab.hooks.analysis import Config

    without = statistics.median(seconds(folder, values, steps)[2:])
    with_tables = seconds(folder, {**values, "analysis": {"every": 2}}, steps)
    measured = statistics.median(with_tables[3::2])  # steps 4, 6, ...
    share = (measured - without) / (Config().every * without)
    return {
        "step (ms)": 1000 * without,
        "measured step (ms)": 1000 * measured,
        SHARE: 100 * share,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as made:
        values = make(Path(made), asked.layers, asked.batch_size)
        for _ in range(asked.rounds):
            for method in METHODS:
                named = {**values, "method": {"name": method}}
                found[method].append(compared(Path(made), named, asked.steps))
    goals = [Goal(SHARE, method, compare="value", at_most=2.0) for method in METHODS]
    write("gradient_tables", CLAIM, found, goals, vars(asked) | {"shape": SHAPE})
