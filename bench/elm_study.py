"""Keep what a study of ELM has come to: its table, its curves, and examples that are drawn, not chosen.

    python bench/elm_texts.py --data ../shared/data --out texts.jsonl
    graftlab synthesize texts.jsonl --column text --target category=category --target summary=summary \\
      --target questions=questions --names "World,Sports,Business,Science and technology" \
      --validation-share 0.04 --out vectors
    graftlab embed vectors --model minilm --precision bfloat16
    graftlab run elm/study --set task.data_dir=vectors --out run
    graftlab evaluate run --controls
    python bench/elm_study.py run --figure docs/methods/elm-study.png

Examples show what was written alone: texts and answers wanted are rows of the data sets, by their numbers.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

import numpy as np
from harness import RESULTS
from matplotlib.figure import Figure

from graftlab.rundir.run import Run

EXAMPLES, SEED = 10, 0
LONGEST = 160  # characters of what was written
SHOWN = {
    "category": ("loss", "exact_match"),
    "summary": ("loss", "bertscore_f1", "semantic_consistency", "reciprocal_rank", "median_rank"),
    "questions": ("loss", "bertscore_f1", "semantic_consistency", "reciprocal_rank", "median_rank"),
}


def table(rows: list[dict[str, str]]) -> str:
    """Return the controls' scores as Markdown: a line a score, and its difference from the vectors."""
    ways = list(dict.fromkeys(row["control"] for row in rows))
    lines = [f"| | {' | '.join(ways)} |", "| --- |" + " --- |" * len(ways)]
    for kind, metrics in SHOWN.items():
        for metric in metrics:
            cells = [row for row in rows if (row["task_type"], row["metric"]) == (kind, metric)]
            if cells:
                lines.append(f"| {kind}, `{metric}` | {' | '.join(map(cell, cells))} |")
    return "\n".join(lines) + "\n"


def cell(row: dict[str, str]) -> str:
    """Return a score, with by how much it differs from the vectors' and half its interval."""
    if not row["value"]:
        return "-"
    value = f"{float(row['value']):.3f}"
    if not row["difference"]:
        return value
    half = f" ± {(float(row['high']) - float(row['low'])) / 2:.3f}" if row["low"] else ""
    return f"{value} ({float(row['difference']):+.3f}{half})"


def examples(folder: Path) -> str:
    """Return drawn examples as Markdown: what was written of the vector, and of another text's."""
    read = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").open(encoding="utf-8")]
        for name in ("vectors", "shuffled")
    }
    drawn = np.random.default_rng(SEED).permutation(len(read["vectors"]))[:EXAMPLES].tolist()
    lines = [
        "| test row | asked for | of its vector | of another text's |",
        "| --- | --- | --- | --- |",
    ]
    for place in sorted(drawn):
        row = read["vectors"][place]
        own, other = (short(read[name][place]["prediction"]) for name in read)
        lines.append(f"| {row['index']} | {row['task_type']} | {own} | {other} |")
    return "\n".join(lines) + "\n"


def short(text: str) -> str:
    plain = " / ".join(text.split("\n")).replace("|", "\\|").strip()
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 3]}..."


def curves(run: Run) -> list[dict[str, object]]:
    """Return the losses of training and validation by step."""
    names = ("loss", "validation/loss", "validation/token_accuracy", "elm/cosine", "elm/spread")
    logged = run.read_metrics()
    return [
        {"step": row["step"], **{name: row.get(name) for name in names}}
        for row in logged
        if any(name in row for name in names)
    ]


def draw(rows: list[dict[str, object]], out: Path) -> None:
    """Write the learning curves."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for name in ("loss", "validation/loss"):
        known = [(row["step"], row[name]) for row in rows if row[name] is not None]
        axes.plot(*zip(*known, strict=True), label=name.replace("/", " "), linewidth=1.4)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("nats a token")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="elm-study", help="Of the folder in bench/results.")
    parser.add_argument("--figure", type=Path, help="Where the learning curves are drawn.")
    given = parser.parse_args()
    [found] = (given.run / "evaluation").glob("controls-*")
    out = RESULTS / given.name
    out.mkdir(exist_ok=True)
    shutil.copy(found / "controls.csv", out)
    points = curves(Run(given.run))
    with (out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(points[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)
    if given.figure:
        draw(points, given.figure)
    with (out / "controls.csv").open(encoding="utf-8") as file:
        print(table(list(csv.DictReader(file))))
    print(examples(found / "predictions"))


if __name__ == "__main__":
    main()
