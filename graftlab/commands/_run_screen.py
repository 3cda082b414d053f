"""How `graftlab show` prints a run on one screen, and what differs between two."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graftlab.commands._class_table import class_lines
from graftlab.commands._options import duration
from graftlab.commands._report import score_text
from graftlab.config import inline
from graftlab.contracts import read_notes

if TYPE_CHECKING:
    from graftlab.rundir.provenance import Difference
    from graftlab.rundir.records import Result
    from graftlab.runs.difference import Differences
    from graftlab.runs.paired import Gap
    from graftlab.runs.summary import Curve, Summary

BLOCKS = "▁▂▃▄▅▆▇█"
POINTS = 40  # characters of a sparkline
WIDTH = 100
LONGEST = 90  # characters of a value


def screen(shown: "Summary") -> str:
    """Return a run on one screen: scores first."""
    run, row, done = shown.run, shown.row, shown.result
    lines = [f"{run.path} ({row.status}{_next(shown)})"]
    lines += [f"  {row.cause}"] if row.cause else []
    what = ", ".join(filter(None, (row.method, row.task and f"on {row.task}", row.backbone)))
    lines += [f"  {what}; began {row.date}"]
    if done is not None:
        lines += [*_scores(done, shown), *_classes(shown), *_facts(done)]
    lines += _section(
        "curves", map(str.lstrip, _columns([_curve(curve) for curve in shown.curves]))
    )
    if shown.given is not None:
        head = f"beside the recipe {shown.recipe}" if shown.recipe else "given in its run file"
        said = ", ".join(f"{key}: {_short(value)}" for key, value in shown.given.items())
        lines += _section(head, iter(textwrap.wrap(said, WIDTH, break_long_words=False)))
    lines += _section("where", _places(shown))
    return "\n".join([*lines, "", f"All of it: graftlab show {run.path} --all"])


def _next(shown: "Summary") -> str:
    """Return how to go on with a run that is not finished."""
    if shown.row.status == "failed" and not shown.trained:
        return ": mend it, and the same `graftlab run` begins it anew"
    return (
        f": graftlab resume {shown.run.path}" if shown.row.status in ("failed", "stopped") else ""
    )


def _section(head: str, lines: "Iterator[str] | map[str]") -> list[str]:
    found = [f"  {line}" for line in lines]
    return ["", head, *found] if found else []


def _scores(done: "Result", shown: "Summary") -> list[str]:
    """Return the scores of each split in columns, and beside them what always saying one class gets."""
    metrics = done.get("metrics", {})
    splits = [split for split in ("test", "validation") if split in metrics]
    names = list(dict.fromkeys(name for split in splits for name in metrics[split]))
    rows = [["", *splits]]
    for name in names:
        cells = [metrics[split].get(name) for split in splits]
        rows.append([name, *(score_text(cell) if cell else "" for cell in cells)])
    if shown.largest is not None:
        right = [shown.largest.right.get(split) for split in splits]
        always = f"always {shown.largest.name!r}"
        rows.append([always, *("" if share is None else f"{share:.4f}" for share in right)])
    return ["", *_columns(rows)] if names else []


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows in columns, the first to the left and the others beginning alike."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return [
        "  " + "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _classes(shown: "Summary") -> list[str]:
    """Return what there is to say by class of test, or else of validation."""
    split = next((split for split in ("test", "validation") if split in shown.classes), None)
    return ["", f"{split}, by class", *class_lines(shown.classes[split])[:-1]] if split else []


def _facts(done: "Result") -> list[str]:
    """Return parameters, steps and time, and what a reader has to know."""
    lines = []
    if "parameters" in done:
        trained, total = done["parameters"]["trainable"], done["parameters"]["total"]
        seconds = duration(done["seconds"]["training"])
        lines = [
            "",
            f"  {trained:,} of {total:,} parameters trained ({trained / total:.2%}), step "
            f"{done['selected_step']} of {done['steps']}, {seconds} of training",
        ]
        if done["skipped_steps"]:
            lines.append(f"  {done['skipped_steps']} steps were skipped: not finite")
    lines += [f"  Warning: {note}" for note in read_notes(done.get("notes", ()))]
    lines += [f"  Not exactly repeatable: {note}" for note in read_notes(done.get("not_exact", ()))]
    return lines


def _curve(curve: "Curve") -> list[str]:
    best = max if curve.name != "loss" and not curve.name.endswith("/loss") else min
    place = curve.values.index(best(curve.values))
    word = "highest" if best is max else "lowest"
    return [
        curve.name,
        sparkline(curve.values),
        f"{curve.values[0]:.4g} to {curve.values[-1]:.4g}, {word} {curve.values[place]:.4g} at step "
        f"{curve.steps[place]}",
    ]


def sparkline(values: Sequence[float]) -> str:
    """Return values as a line of blocks; of many, each block is the mean of those that fall into it."""
    parts = min(len(values), POINTS)
    cuts = [len(values) * part // parts for part in range(parts + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in means)


def _places(shown: "Summary") -> Iterator[str]:
    """Yield what of the run is there, with its path."""
    run = shown.run
    named = {
        "adapter": run.adapter,
        "predictions": run.path / "predictions",
        "analysis": run.path / "analysis",
        "selection": run.selection,
        "log": run.log,
    }
    for name, path in named.items():
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            yield f"{name:<11}  {path}"


def _short(value: object) -> str:
    text = inline(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def apart(found: "Differences") -> str:
    """Return what differs between two runs."""
    from graftlab.runs import paired

    lines = [f"{found.first} -> {found.second}"]
    lines += _section("scores", iter(_gaps(found.scores)))
    if any(gap.interval for gap in found.scores):
        lines.append(f"  in brackets: {paired.INTERVAL}; other seeds may differ by more")
    for head, changes in (
        ("config", found.config),
        ("data", found.data),
        ("versions", found.versions),
    ):
        lines += _section(head, map(_change, changes)) or ["", f"{head}: the same"]
    return "\n".join(lines)


def _change(changed: "Difference") -> str:
    return f"{changed.key}: {_short(changed.before)} -> {_short(changed.now)}"


def _gaps(gaps: "Sequence[Gap]") -> list[str]:
    rows = []
    for gap in gaps:
        ends = gap.interval
        said = f"[{ends[0]:+.4f}, {ends[1]:+.4f}]" if ends else f"({gap.reason})"
        difference = "" if gap.difference is None else f"{gap.difference:+.4f}"
        values = ("-" if value is None else f"{value:.4f}" for value in (gap.first, gap.second))
        rows.append([f"{gap.split} {gap.metric}", " -> ".join(values), difference, said])
    return [line[2:] for line in _columns(rows)] if rows else []
