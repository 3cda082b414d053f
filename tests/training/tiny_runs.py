"""A run of 12 steps on a model made on the spot: dropout, accumulation, bucketed batches, an evaluation."""

import random
from pathlib import Path
from typing import Any

from graftlab import config, runfile
from graftlab.config import merge
from graftlab.rundir.run import Run
from graftlab.runs import session

WORDS = {"good": ("fine", "glad", "warm", "kind"), "bad": ("poor", "sad", "cold", "harsh")}

TWELVE_STEPS: dict[str, Any] = {
    "name": "tiny",
    "backbone": {"kind": "tiny", "width": 16, "layers": 1, "max_length": 48, "dropout": 0.1},
    "task": {"kind": "classification", "columns": {"text": "text", "label": "label"}},
    "method": {"name": "lora", "rank": 2, "alpha": 4.0, "dropout": 0.1},
    "training": {
        "max_steps": 12, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 0.01,
        "logging_every": 1, "evaluate_every": 4, "save_every": 3, "workers": 0,
    },
}  # fmt: skip


def write_rows(path: Path, count: int, seed: int) -> None:
    """Write sentences of different lengths whose words tell the label."""
    draw = random.Random(seed)
    lines = ["text,label"]
    for index in range(count):
        label = ("good", "bad")[index % 2]
        words = [draw.choice(WORDS[label]) for _ in range(draw.randint(1, 6))]
        lines.append(f"{' '.join(words)} {seed}{index},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_task(folder: Path) -> dict[str, Any]:
    """Write 40 train and 8 validation and test rows; return the fields that point at them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for seed, (split, count) in enumerate({"train": 40, "validation": 8, "test": 8}.items()):
        files[split] = str(folder / f"{split}.csv")
        write_rows(folder / f"{split}.csv", count, seed)
    return {"files": files}


def run_file(folder: Path, changes: dict[str, Any] | None = None) -> runfile.RunFile:
    """Return the run file of 12 steps, with its data below `folder` and sections laid over it."""
    values = merge(TWELVE_STEPS, {"paths": {"runs": str(folder / "runs")}})
    values = merge(values, {"task": write_task(folder / "data")})
    path = folder / "run.yaml"
    path.write_text(config.dump(merge(values, changes or {})), encoding="utf-8")
    return runfile.resolve(config.read(path))


def carry_out(folder: Path, changes: dict[str, Any], options: session.Options | None = None) -> Run:
    """Return a finished run of the run file with sections laid over it."""
    folder.mkdir(parents=True, exist_ok=True)
    return session.run(run_file(folder, changes), options=options or quiet())


def quiet() -> session.Options:
    return session.Options(quiet=True)
