"""Draw the training losses around the switch from a study that bench/paired.py has recorded.

python bench/switch_figure.py jelly-trec docs/methods/jelly-trec.png
"""

import json
import sys
from pathlib import Path

import numpy as np
from harness import RESULTS
from matplotlib.figure import Figure

SMOOTH = 5  # steps of which a point is the mean: single batches are noise


def draw(record: dict, out: Path) -> None:
    """Write a figure: one line a row that switches at a fixed step, and LoRA's."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    axes = figure.subplots()
    switch = None
    for row in record["rows"]:
        steps = set(row["switch_steps"])
        fixed = "seq2par" in row["method"] and len(steps) == 1
        if not fixed and row["method"] != record["baseline"]:
            continue
        if fixed and "switch_method" not in row["method"]:
            continue
        values = np.array([row["training_loss"][step] for step in row["training_loss"]])
        smooth = np.convolve(values, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
        at = np.arange(SMOOTH, len(values) + 1)
        name = row["method"].rpartition("switch_method=")[2]
        axes.plot(at, smooth, linewidth=1.8, label=f"{name}, rate {row['learning_rate']}")
        switch = switch or (steps.pop() if fixed else None)
    if switch:
        axes.axvline(switch, color="0.5", linewidth=1, linestyle=":")
        axes.annotate("switch", (switch + 1, axes.get_ylim()[1] * 0.95), color="0.35")
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(f"training loss, mean of {record['seeds']} seeds and {SMOOTH} steps")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    path = RESULTS / "studies" / f"{sys.argv[1]}.json"
    draw(json.loads(path.read_text(encoding="utf-8")), Path(sys.argv[2]))
