"""Keep what a study has come to in docs/studies/NAME: seeds and tuning drawn, the ranking as tables.

    graftlab compare studies/images --out study
    python bench/study_page.py images study
    python bench/study_page.py               # the tables of all pages again, from what is kept

The tables that `compare` writes are kept in bench/results/NAME; the page has them between its marks.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

from harness import RESULTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TABLES = ("comparison.csv", "differences.csv", "runs.csv")
PAGES = Path(__file__).parents[1] / "docs" / "studies"
BEGIN, END = "<!-- study: begin (made by bench/study_page.py) -->", "<!-- study: end -->"


def read(name: str, table: str) -> list[dict[str, str]]:
    with (RESULTS / name / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tables(name: str) -> str:
    """Return a table for each task: rows best first, each with its difference from the best."""
    rows, pairs = read(name, "comparison"), read(name, "differences")
    return "\n".join(
        _table(
            [row for row in rows if row["task"] == task], [p for p in pairs if p["task"] == task]
        )
        for task in dict.fromkeys(row["task"] for row in rows)
    )


def _table(rows: list[dict[str, str]], pairs: list[dict[str, str]]) -> str:
    rows = sorted(rows, key=lambda row: -float(row["test_mean"]))
    forgets = any(row["forgetting_mean"] for row in rows)
    tuned = any(row.get("training.learning_rate") for row in rows)
    heads = [
        f"{rows[0]['task']}, {Path(rows[0]['backbone']).name}", *(["rate"] if tuned else []),
        f"test {rows[0]['metric']} ± sd", "less the best (95 %)", "p, Holm", "trained",
        *(["forgotten (95 %)"] if forgets else []),
    ]  # fmt: skip
    lines = [f"| rank | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for row in rows:
        cells = [
            f"{row['rank']}-{row['rank_worst']}"
            if row["rank"] != row["rank_worst"]
            else row["rank"],
            row["method"],
            *([f"{float(row['training.learning_rate']):.2g}"] if tuned else []),
            f"{100 * float(row['test_mean']):.1f} ± {100 * float(row['test_deviation']):.1f}",
            *_beside(row, rows[0], pairs),
            f"{int(row['trainable']):,}",
        ]
        if forgets:
            ends = [
                f"{float(row[f'forgetting_{end}']):+.3f}"
                for end in ("low", "high")
                if row[f"forgetting_{end}"]
            ]
            told = f" ({' to '.join(ends)})" if ends else ""
            cells.append(f"{float(row['forgetting_mean']):+.3f}{told}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _beside(
    row: dict[str, str], best: dict[str, str], pairs: list[dict[str, str]]
) -> tuple[str, str]:
    """Return the row less the best in points with its interval, and the corrected p."""
    for pair in pairs:
        sign = {(row["method"], best["method"]): 1, (best["method"], row["method"]): -1}
        if (way := sign.get((pair["first"], pair["second"]))) and pair["low"]:
            ends = sorted(100 * way * float(pair[end]) for end in ("low", "high"))
            told = (
                f"{100 * way * float(pair['difference']):+.1f} ({ends[0]:+.1f} to {ends[1]:+.1f})"
            )
            return told, f"{float(pair['p_holm']):.3f}"
    return "", ""


def fill(page: str, name: str) -> str:
    """Return the page with what is between its marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, marked, after = rest.partition(END)
    assert marked, f"{name} has lost its marks {BEGIN!r} and {END!r}"
    return f"{before}{BEGIN}\n\n{tables(name)}\n{END}{after}"


def scores(axes: Axes, rows: list[dict[str, Any]], colours: dict[str, str]) -> None:
    """Draw a line a method: each seed's score on test, and their mean."""
    ordered = sorted(rows, key=lambda row: row["test"]["mean"])
    for place, row in enumerate(ordered):
        name = label(row)
        values = list(row["test"]["values"].values())
        axes.plot(values, [place] * len(values), "o", color=colours[name], alpha=0.45, markersize=5)
        axes.plot(
            [row["test"]["mean"]],
            [place],
            "|",
            color=colours[name],
            markersize=16,
            markeredgewidth=2.2,
        )
    axes.set_yticks(range(len(ordered)), [label(row) for row in ordered])
    axes.set_xlabel(f"test {ordered[0]['metric']}")


def tuning(axes: Axes, tunings: list[dict[str, Any]], colours: dict[str, str]) -> None:
    """Draw the validation score over the learning rate, what was chosen as a ring."""
    for found in tunings:
        points = sorted(
            (float(point["setting"]["training.learning_rate"]), point["value"], point["chosen"])
            for point in found["points"]
            if point["value"] is not None
        )
        colour = colours[label(found)]
        axes.plot(
            [rate for rate, _, _ in points],
            [value for _, value, _ in points],
            color=colour,
            linewidth=1.2,
        )
        axes.plot(
            *zip(*[(rate, value) for rate, value, chosen in points if chosen], strict=True),
            "o",
            color=colour,
        )
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(f"validation {tunings[0]['metric']}")


def label(row: dict[str, Any]) -> str:
    return str(row["method"])


def draw(comparison: dict[str, Any], out: Path) -> None:
    """Write a row of both panels for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in comparison["rows"]))
    figure = Figure(figsize=(9, 3.3 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), 2, squeeze=False)
    names = list(dict.fromkeys(label(row) for row in comparison["rows"]))
    palette = (
        "#4e79a7",
        "#f28e2b",
        "#e15759",
        "#76b7b2",
        "#59a14f",
        "#b6992d",
        "#b07aa1",
        "#ff9da7",
        "#9c755f",
    )
    colours = {name: palette[place % len(palette)] for place, name in enumerate(names)}
    for task, (left, right) in zip(tasks, panels, strict=True):
        left.set_title(task, loc="left", fontsize=10)
        scores(left, [row for row in comparison["rows"] if row["task"] == task], colours)
        tuning(right, [one for one in comparison["tunings"] if one["task"] == task], colours)
        for axes in (left, right):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", help="Of the page, and of the folder in bench/results.")
    parser.add_argument("study", type=Path, nargs="?", help="The study's directory.")
    given = parser.parse_args()
    if given.study:
        out = RESULTS / given.name
        out.mkdir(exist_ok=True)
        for table in TABLES:
            shutil.copy(given.study / table, out)
        text = (given.study / "comparison.json").read_text(encoding="utf-8")
        draw(json.loads(text), PAGES / f"{given.name}.png")
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(fill(text, path.stem), encoding="utf-8")


if __name__ == "__main__":
    main()
