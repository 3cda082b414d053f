"""A comparison as a table on the terminal, as JSON and as CSV."""

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graftlab.rundir import files, spreadsheet
from graftlab.study import difference_table
from graftlab.study.records import Comparison, Row, Summary
from graftlab.terminal import console, say

FILE_WIDTH = 200  # columns; a ranking with three settings fits


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values."""
    return {**dataclasses.asdict(comparison), "holes": comparison.holes}


def write(comparison: Comparison, out: Path) -> None:
    """Write comparison.json, comparison.csv (a line a row), differences.csv (a pair) and runs.csv (a run)."""
    files.write_json(out / "comparison.json", as_json(comparison))
    files.write_text(out / "comparison.csv", spreadsheet.text(map(_flat, comparison.rows)))
    pairs = map(difference_table.flat, comparison.differences)
    files.write_text(out / "differences.csv", spreadsheet.text(pairs))
    files.write_text(out / "runs.csv", spreadsheet.text(comparison.runs))


def _flat(row: Row) -> dict[str, Any]:
    return {
        "task": row.task,
        "backbone": row.backbone,
        "rank": row.rank,
        "rank_worst": row.rank_worst,
        "method": row.method,
        **row.setting,
        "metric": row.metric,
        "ranked_by": row.ranked_by,
        "seeds": len([value for value in row.score.values.values() if value is not None]),
        **_columns("test", row.test),
        **_columns("validation", row.validation),
        "last_mean": row.last and row.last.mean,
        "last_deviation": row.last and row.last.deviation,
        "interquartile_mean": row.score.interquartile_mean,
        "collapsed_seeds": " ".join(map(str, row.score.collapsed)) or None,
        "trainable": row.trainable,
        "total": row.total,
        "training_seconds": row.seconds,
        "peak_memory_bytes": row.peak_memory_bytes,
        "adapter_bytes": row.adapter_bytes,
        "training_flops": row.training_flops,
        **_forgetting(row),
        "inference_seconds": row.inference_seconds,
        "merged_inference_seconds": row.merged_inference_seconds,
        "not_paired": "; ".join(row.not_paired) or None,
        "holes": _by_seed(row.holes),
    }


def _by_seed(causes: Mapping[int, str]) -> str | None:
    return "; ".join(f"seed {seed}: {cause}" for seed, cause in causes.items()) or None


def _forgetting(row: Row) -> dict[str, Any]:
    found = row.forgetting
    return {
        "forgetting_on": found and found.on,
        "forgetting_measure": found and found.measure,
        "forgetting_base": found and found.base,
        "forgetting_mean": found and found.mean,
        "forgetting_deviation": found and found.deviation,
        "forgetting_low": found and found.low,
        "forgetting_high": found and found.high,
        "forgetting_holes": _by_seed(row.forgetting_holes),
    }


def _columns(split: str, summary: Summary) -> dict[str, float | None]:
    return {
        f"{split}_mean": summary.mean,
        f"{split}_deviation": summary.deviation,
        f"{split}_standard_error": summary.standard_error,
    }


def show(comparison: Comparison) -> None:
    """Print the ranking, the grid it was chosen from, what is not paired, and the holes."""
    whole = not sys.stdout.isatty() and "COLUMNS" not in os.environ  # a file has no right edge
    screen = console(width=FILE_WIDTH if whole else None)
    for task, backbone, rows in _by_task(comparison.rows):
        screen.print(_ranking(f"{task}, {backbone}", rows))
        if own := [d for d in comparison.differences if (d.task, d.backbone) == (task, backbone)]:
            screen.print(difference_table.table(by_place(rows)[0].label, own))
        if any(row.last or row.adapter_bytes or row.inference_seconds for row in rows):
            screen.print(_beside(rows))
        if any(row.forgetting for row in rows):
            screen.print(_forgotten(rows))
    if comparison.grid:
        for task, backbone, rows in _by_task(comparison.grid):
            screen.print(_grid(f"{task}, {backbone}: chosen by {comparison.chosen_by}", rows))
    lines = difference_table.sentences(comparison.differences)
    lines += _edges(comparison)
    lines += [
        f"collapsed: {row.label} on {row.task} at seed {seed}: far below its other seeds"
        for row in comparison.rows
        for seed in row.score.collapsed
    ]
    lines += [
        f"not paired: {row.method} on {row.task}{_setting(row)}: {'; '.join(row.not_paired)}"
        for row in comparison.rows
        if row.not_paired
    ]
    without = {
        f"{row.task}: no test split: ranked by validation, which chose the step too"
        for row in comparison.rows
        if row.ranked_by == "validation"
    }
    lines += sorted(without)
    lines += [f"not finished: {run['run']}: {run['cause']}" for run in comparison.holes]
    lines += [
        f"forgetting not known: {row.runs[seed]}: {cause}"
        for row in comparison.rows
        for seed, cause in row.forgetting_holes.items()
    ]
    lines += [
        f"not exactly repeatable: {run['run']}: {run['not_exact']}"
        for run in comparison.runs
        if run.get("not_exact")
    ]
    lines += [f"{run['run']}: {run['warnings']}" for run in comparison.runs if run.get("warnings")]
    for line in lines:
        say(line)


def _edges(comparison: Comparison) -> list[str]:
    """Return which chosen values stand at an end of what was tried."""
    return [
        f"at the edge: {own.method} on {own.task}: {key} is the {edge} that was tried: widen the grid"
        for own in comparison.tunings
        for key, edge in own.edges.items()
    ]


def _by_task(rows: Iterable[Row]) -> list[tuple[str, str, list[Row]]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.backbone), []).append(row)
    return [(*key, rows) for key, rows in groups.items()]


def by_place(rows: Iterable[Row]) -> list[Row]:
    """Return the rows in the order of their means; those without one at the end."""
    return sorted(rows, key=lambda row: (row.place is None, row.place or 0))


def rank(row: Row) -> str:
    """Return between which ranks a row stands, as in 1 or 2-4."""
    if row.rank is None:
        return ""
    return f"{row.rank}" if row.rank == row.rank_worst else f"{row.rank}-{row.rank_worst}"


def _ranking(title: str, rows: list[Row]) -> Any:
    from rich.table import Table

    metric = next((row.metric for row in rows if row.metric), "metric")
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    table.add_column("method", overflow="fold", min_width=6)
    keys = list(dict.fromkeys(key for row in rows for key in row.setting))
    for key in keys:
        table.add_column(key.rpartition(".")[2], no_wrap=True)
    score = f"{rows[0].ranked_by} {metric} ± sd"
    for name in (score, "se", "trainable", "time", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in by_place(rows):
        cells = [
            rank(row),
            row.method + ("" if not row.not_paired else " *"),
            *(row.setting.get(key, "") for key in keys),
            interval(row.score),
            "" if row.score.standard_error is None else f"{row.score.standard_error:.4f}",
            "" if row.trainable is None else f"{row.trainable:,}",
            "" if row.seconds is None else f"{row.seconds:.1f} s",
            "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:.0f} MiB",
        ]
        table.add_row(*cells)
    return table


def _beside(rows: list[Row]) -> Any:
    """Return what else is known of each row, in a table that a terminal of 80 columns has room for."""
    from rich.table import Table

    table = Table(title="last step, and what an adapter costs in use")
    table.add_column("method")
    for name in ("last", "file", "1,000 examples"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in by_place(rows):
        table.add_row(
            row.label,
            "" if row.last is None or row.last.mean is None else f"{row.last.mean:.4f}",
            "" if row.adapter_bytes is None else f"{row.adapter_bytes / 2**10:,.0f} KiB",
            _inference(row),
        )
    return table


def _forgotten(rows: list[Row]) -> Any:
    """Return how much worse each row has become at what it was not trained on."""
    from rich.table import Table

    known = next(row.forgetting for row in rows if row.forgetting)
    verb = "risen" if known.measure == "loss" else "fallen"
    title = f"forgetting: how far {known.measure} on {known.on} has {verb}; base {known.base:.4f}"
    table = Table(title=title)
    table.add_column("method")
    for name in ("forgotten ± sd", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in by_place(rows):
        one = row.forgetting
        if one is None:
            table.add_row(row.label, "-", "")
            continue
        spread = "" if one.deviation is None else f" ± {one.deviation:.4f}"
        ends = "" if one.low is None else f"{one.low:+.4f} to {one.high:+.4f}"
        table.add_row(row.label, f"{one.mean:+.4f}{spread}", ends)
    return table


def _inference(row: Row) -> str:
    """Return the seconds of inference, and those of the merged model behind a stroke."""
    if row.inference_seconds is None:
        return ""
    merged = row.merged_inference_seconds
    return f"{row.inference_seconds:.2f}" + ("" if merged is None else f" / {merged:.2f}") + " s"


def _grid(title: str, rows: list[Row]) -> Any:
    """Return the settings of each method: as columns where all share them, else each with its own."""
    from rich.table import Table

    keys = list(dict.fromkeys(key for row in rows for key in row.setting))
    table = Table(title=f"{title}; {', '.join(keys)}", caption="< was chosen")
    table.add_column("validation")
    methods: dict[str, dict[str, Row]] = {}
    for row in rows:
        methods.setdefault(row.method, {})[", ".join(row.setting.values())] = row
    settings = list(dict.fromkeys(setting for own in methods.values() for setting in own))
    shared = all(len(own) == len(settings) for own in methods.values())
    for setting in settings if shared else ["settings"]:
        table.add_column(setting, justify="right" if shared else "left")
    for method, own in methods.items():
        cells = {
            setting: interval(row.validation) + " <" * row.chosen for setting, row in own.items()
        }
        if shared:
            table.add_row(method, *(cells[setting] for setting in settings))
        else:
            table.add_row(
                method, "; ".join(f"{setting}: {cell}" for setting, cell in cells.items())
            )
    return table


def interval(summary: Summary) -> str:
    """Return mean ± standard deviation, and how many seeds if not all have a value."""
    if summary.mean is None:
        return "-"
    return f"{summary.mean:.4f}" + (
        f" ± {summary.deviation:.4f}" if summary.deviation is not None else ""
    )


def _setting(row: Row) -> str:
    words = (f"{key.rpartition('.')[2]}={value}" for key, value in row.setting.items())
    return f" {', '.join(words)}" if row.setting else ""
