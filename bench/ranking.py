"""The ranking of a recorded study, with the places that its differences leave open, in docs/benchmarks.md.

python bench/ranking.py [NAME ...]

NAME is a folder of bench/results with the study's runs.csv: by it alone all pairs of methods are compared, by
Student's t over the paired seeds, corrected for their number (Holm). Without a name: all whose mark is there.
"""

import csv
import math
import re
import statistics
import sys
from pathlib import Path

from harness import RESULTS

from graftlab.statistics import ranks
from graftlab.study import difference_table
from graftlab.study.differences import differences
from graftlab.study.records import Row, Summary

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
END = "<!-- ranking: end -->"
METRIC = "accuracy"


def mark(name: str) -> str:
    """Return what the page has before the ranking of a study."""
    return f"<!-- ranking: {name} (made by bench/ranking.py) -->"


def rows(name: str) -> list[Row]:
    """Return the reported rows of a study, best first, by its runs.csv."""
    with (RESULTS / name / "runs.csv").open(encoding="utf-8") as file:
        runs = [row for row in csv.DictReader(file) if row["reported"] == row["finished"] == "True"]
    found: dict[str, list[dict[str, str]]] = {}
    for run in runs:
        found.setdefault(run["method"], []).append(run)
    made = [_row(own) for own in found.values()]
    return sorted(made, key=lambda row: -(row.score.mean or 0.0))


def _row(runs: list[dict[str, str]]) -> Row:
    first = runs[0]
    values: dict[int, float | None] = {
        int(run["seed"]): float(run[f"test/{METRIC}"]) for run in runs
    }
    known = [value for value in values.values() if value is not None]
    errors = [float(run[f"test/{METRIC}/standard_error"]) for run in runs]
    summary = Summary(
        math.fsum(known) / len(known), statistics.stdev(known), statistics.mean(errors), values
    )
    setting = {"training.learning_rate": first["training.learning_rate"]}
    return Row(
        first["task"], first["backbone"], first["method"], setting, METRIC, True, summary, summary,
        int(first["trainable"]), None, None, max(int(run["peak_memory_bytes"]) for run in runs),
        {int(run["seed"]): run["run"] for run in runs}, {}, label=first["method"],
    )  # fmt: skip


def table(name: str) -> str:
    """Return the ranking in Markdown, with what is known of the differences."""
    best_first = rows(name)
    found = differences([best_first], None)
    seen = [(one.better, one.second if one.better == one.first else one.first) for one in found]
    places = ranks.ranks([row.label for row in best_first], [(a, b) for a, b in seen if a])
    seeds = len(best_first[0].score.values)
    lines = [
        f"| rank | method | learning rate | test {METRIC}, mean ± standard deviation of {seeds} seeds "
        "| standard error of one run | trainable | peak memory (MiB) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in best_first:
        best, worst = places[row.label]
        score, memory = row.score, row.peak_memory_bytes or 0
        lines.append(
            f"| {best if best == worst else f'{best}-{worst}'} | {row.label} "
            f"| {row.setting['training.learning_rate']} | {score.mean:.4f} ± {score.deviation:.4f} "
            f"| {score.standard_error:.4f} | {row.trainable:,} | {memory / 2**20:.0f} |"
        )
    pairs = [
        f"{one.better} over {one.second if one.better == one.first else one.first} "
        f"by {abs(one.difference or 0):.4f} (p = {difference_table.p_value(one.p_holm)})"
        for one in found
        if one.better
    ]
    said = difference_table.sentences(found)[0]
    return "\n".join([*lines, "", f"{said} {'; '.join(pairs)}".rstrip() + "." * bool(pairs), ""])


def fill(page: str, name: str) -> str:
    """Return the page with the ranking of a study in its marked place."""
    before, found, rest = page.partition(mark(name))
    assert found, f"{PAGE} has no {mark(name)}"
    return f"{before}{found}\n\n{table(name)}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for study in sys.argv[1:] or re.findall(r"<!-- ranking: ([\w-]+) \(made", text):
        text = fill(text, study)
    PAGE.write_text(text, encoding="utf-8")
