"""The rows of a finished study against one of them: paired differences, with what they leave open.

python bench/paired.py STUDY BASELINE [--out NAME]
python bench/paired.py --pages

With --out it records what it found and puts the table into the page of docs/methods that has its mark;
--pages does so for all that is recorded.

STUDY is a study's directory, BASELINE a row's name. Accuracy on test, in points. A pair is two runs of one
seed, so that batches are the same; runs and examples are both samples (`graftlab.statistics.components`).
p-values are corrected for all comparisons with the baseline (Holm). Records from before the examples' part
had to be seen to count have seeds - 1 degrees of freedom throughout, which is careful.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS
from numpy.typing import NDArray

from graftlab.statistics import components, multiplicity, power
from graftlab.statistics.estimates import Estimate

# Shapes: S seeds, E test examples.


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
    """Return mean difference in points, its standard error, and the degrees of freedom behind that."""
    found = components.paired(100 * first_SE, 100 * second_SE)
    return {
        "difference": found.value,
        "standard_error": found.standard_error,
        "degrees_of_freedom": found.degrees_of_freedom,
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


def table(record: dict[str, Any]) -> str:
    """Return the record as a table in Markdown, without columns that no row has a value in."""
    compared = [row for row in record["rows"] if "difference" in row]
    count = len(compared)
    columns = (
        "row", "rate", "accuracy ± sd", "difference (95 %)", "p", f"p of all {count}",
        "smallest visible", "switch steps", "loss at the switch",
    )  # fmt: skip
    together = multiplicity.holm([p for row in compared if (p := estimate(row).p) is not None])
    corrected = dict(zip([row["method"] for row in compared], together, strict=True))
    cells = [_cells(row, corrected.get(row["method"])) for row in record["rows"]]
    kept = [i for i in range(len(columns)) if any(row[i] != "-" for row in cells)]
    lines = [columns, ["---"] * len(columns), *cells]
    return (
        f"{record['seeds']} seeds, {record['examples']} test examples; accuracy is the mean over the seeds ± "
        f"their standard deviation, differences are from `{record['baseline']}`, with p-values alone and "
        f"corrected for all {count} (Holm).\n\n"
        + "".join(f"| {' | '.join(line[i] for i in kept)} |\n" for line in lines)
    )


def estimate(row: dict[str, Any]) -> Estimate:
    """Return the difference of a recorded row."""
    return Estimate(row["difference"], row["standard_error"] ** 2, row["degrees_of_freedom"])


def _cells(row: dict[str, Any], corrected: float | None) -> list[str]:
    gap = p = seen = loss = "-"
    if "difference" in row:
        found = estimate(row)
        low, high = found.interval() or (found.value, found.value)
        gap = f"{found.value:+.2f} ({low:+.2f} to {high:+.2f})"
        p, seen = f"{found.p:.3f}", f"{power.smallest_visible(found):.2f}"
    if "probe_loss_before" in row:
        loss = f"{row['probe_loss_before']:.3f} to {row['probe_loss_after']:.3f}"
    accuracy = f"{row['accuracy']:.2f} ± {row['deviation']:.2f}"
    steps = ", ".join(map(str, row["switch_steps"])) or "-"
    together = "-" if corrected is None else f"{corrected:.3f}"
    return [
        f"`{row['method']}`", str(row["learning_rate"]), accuracy, gap, p, together, seen, steps, loss
    ]  # fmt: skip


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


def put(name: str, record: dict[str, Any]) -> None:
    """Put the table of a study into the pages that have its mark."""
    for path in PAGES.glob("*.md"):
        filled = fill(path.read_text(encoding="utf-8"), name, record)
        path.write_text(filled, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=Path, nargs="?")
    parser.add_argument("baseline", nargs="?")
    parser.add_argument("--out")
    parser.add_argument("--pages", action="store_true")
    asked = parser.parse_args()
    folder = RESULTS / "studies"
    if asked.pages:
        for path in sorted(folder.glob("*.json")):
            put(path.stem, json.loads(path.read_text(encoding="utf-8")))
        return
    result = measure(asked.study, asked.baseline)
    if asked.out:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1) + "\n"
        (folder / f"{asked.out}.json").write_text(text, encoding="utf-8")
        put(asked.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
