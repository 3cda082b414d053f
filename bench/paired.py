"""The rows of a finished study against one of them: paired differences, with what they leave open.

python bench/paired.py STUDY BASELINE [--out NAME]

With --out it records what it found and puts the table into the page of docs/methods that has its mark.

STUDY is a study's directory, BASELINE the beginning of a row's name. Accuracy on test, in points. A pair
is two runs of one seed, so that batches are the same. Runs and examples are both samples: a difference
d(s, i) of seed s on example i is taken as mean + seed + example + rest, crossed and independent, and the
variance of its mean as MS_seed / n + MS_example / m - MS_rest / (n m) (Cornfield and Tukey, 1956;
Owen, 2007, arXiv 0710.2622). Intervals take Student's t with n - 1 degrees of freedom, which is careful.
"""

import argparse
import csv
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS
from numpy.typing import NDArray
from scipy import stats

# Shapes: S seeds, E test examples.

LEVEL, POWER = 0.95, 0.8


def hits(runs: list[Path]) -> NDArray[np.float64]:
    """Return 1 where a run is right and 0 where it is not (S, E), in the order of the examples' indices."""
    rows = []
    for run in runs:
        lines = (run / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        found = sorted((json.loads(line) for line in lines), key=lambda row: row["index"])
        rows.append([float(row["label"] == row["prediction"]) for row in found])
    return np.array(rows)


def losses(runs: list[Path]) -> dict[int, float]:
    """Return the training loss by step, the mean over runs, where every run has logged it."""
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("loss") is not None:
                by_step.setdefault(row["step"], []).append(row["loss"])
    return {s: round(statistics.mean(v), 4) for s, v in by_step.items() if len(v) == len(runs)}


def difference(first_SE: NDArray[np.float64], second_SE: NDArray[np.float64]) -> dict[str, float]:
    """Return mean difference, its standard error and interval, and the smallest one that could be seen."""
    d_SE = 100 * (first_SE - second_SE)
    seeds, examples = d_SE.shape
    mean = d_SE.mean()
    by_seed, by_example = d_SE.mean(1), d_SE.mean(0)
    rest = d_SE - by_seed[:, None] - by_example[None, :] + mean
    rest_ms = (rest**2).sum() / max(1, (seeds - 1) * (examples - 1))
    variance = (
        by_seed.var(ddof=1) / seeds
        + by_example.var(ddof=1) / examples
        - rest_ms / (seeds * examples)
    )
    error = math.sqrt(max(variance, by_seed.var(ddof=1) / seeds))
    t = stats.t.ppf(0.5 + LEVEL / 2, seeds - 1)
    return {
        "difference": float(mean),
        "standard_error": error,
        "low": float(mean - t * error),
        "high": float(mean + t * error),
        "smallest_visible": float((t + stats.t.ppf(POWER, seeds - 1)) * error),
    }


def measure(study: Path, baseline: str) -> dict[str, Any]:
    """Return a record for each reported row of the study."""
    with (study / "runs.csv").open(encoding="utf-8") as file:
        runs = [
            r for r in csv.DictReader(file) if r["reported"] == "True" and r["finished"] == "True"
        ]
    rows: dict[str, list[dict[str, str]]] = {}
    for run in runs:
        rows.setdefault(run["method"], []).append(run)
    (base,) = [name for name in rows if name == baseline]
    found = {
        name: hits(
            [study / "runs" / run["run"] for run in sorted(own, key=lambda r: int(r["seed"]))]
        )
        for name, own in rows.items()
    }
    records = []
    for name, own in rows.items():
        scores = found[name].mean(1) * 100
        switches = [r.get("facts/switch_step") or "" for r in own]
        record: dict[str, Any] = {
            "method": name,
            "learning_rate": own[0].get("training.learning_rate"),
            "trainable": int(own[0]["trainable"]),
            "accuracy": float(scores.mean()),
            "deviation": statistics.stdev(scores),
            "by_seed": scores.tolist(),
            "switch_steps": [int(float(s)) for s in switches if s],
            "training_seconds": statistics.mean(float(r["training_seconds"]) for r in own),
        }
        for fact in ("probe_loss_before", "probe_loss_after", "relative_change",
                     "effective_rank_before", "effective_rank_after", "largest_norm_ratio"):  # fmt: skip
            values = [float(r[f"facts/{fact}"]) for r in own if r.get(f"facts/{fact}")]
            if values:
                record[fact] = statistics.mean(values)
        record["training_loss"] = losses([study / "runs" / run["run"] for run in own])
        if name != base:
            record |= difference(found[name], found[base])
        records.append(record)
    shape = next(iter(found.values())).shape
    return {"study": study.name, "baseline": base, "seeds": shape[0], "examples": shape[1],
            "rows": sorted(records, key=lambda r: -r["accuracy"])}  # fmt: skip


COLUMNS = (
    "row",
    "rate",
    "accuracy",
    "difference (95 %)",
    "smallest visible",
    "switch steps",
    "loss at the switch",
)


def table(record: dict[str, Any]) -> str:
    """Return the record as a table in Markdown, without columns that no row has a value in."""
    cells = [_cells(row) for row in record["rows"]]
    kept = [i for i in range(len(COLUMNS)) if any(row[i] != "-" for row in cells)]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *cells]
    return (
        f"{record['seeds']} seeds, {record['examples']} test examples; differences from "
        f"`{record['baseline']}`.\n\n"
        + "".join(f"| {' | '.join(line[i] for i in kept)} |\n" for line in lines)
    )


def _cells(row: dict[str, Any]) -> list[str]:
    gap = seen = loss = "-"
    if "difference" in row:
        gap = f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
        seen = f"{row['smallest_visible']:.2f}"
    if "probe_loss_before" in row:
        loss = f"{row['probe_loss_before']:.3f} to {row['probe_loss_after']:.3f}"
    accuracy = f"{row['accuracy']:.2f} ± {row['deviation']:.2f}"
    steps = ", ".join(map(str, row["switch_steps"])) or "-"
    return [f"`{row['method']}`", str(row["learning_rate"]), accuracy, gap, seen, steps, loss]


PAGES = Path(__file__).parents[1] / "docs" / "methods"
END = "<!-- study: end -->"


def mark(name: str) -> str:
    """Return what a page has before the table of a study."""
    return f"<!-- study: {name} (made by bench/paired.py) -->"


def fill(page: str, name: str, record: dict[str, Any]) -> str:
    """Return the page with the table of a study in its marked place."""
    before, found, rest = page.partition(mark(name))
    if not found:
        return page
    return f"{before}{found}\n\n{table(record)}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("baseline")
    parser.add_argument("--out")
    asked = parser.parse_args()
    result = measure(asked.study, asked.baseline)
    if asked.out:
        folder = RESULTS / "studies"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1) + "\n"
        (folder / f"{asked.out}.json").write_text(text, encoding="utf-8")
        for path in PAGES.glob("*.md"):
            filled = fill(path.read_text(encoding="utf-8"), asked.out, result)
            path.write_text(filled, encoding="utf-8")
    print(table(result))
