"""Examples on which methods disagree: right at every seed of one, wrong at every seed of another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftlab import config, runfile
from graftlab.contracts import Prediction, Problem
from graftlab.contracts.records import inputs_of
from graftlab.errors import DataError, GraftlabError
from graftlab.report.tables import NOTHING, Cell, Table
from graftlab.rundir.run import Run
from graftlab.runs import material, prediction

MOST_METHODS, MOST_SEEDS = 8, 5
"""Whose predictions are read: of more, a page of a thousand runs would wait for all of them."""
MOST_EXAMPLES = 20
LONGEST = 300  # characters of a text


@dataclass(frozen=True)
class Judged:
    """What one method has made of one example, over its seeds."""

    said: str
    """What it predicts at most seeds."""
    right: float | None
    """The share of seeds at which that is the label; None where nothing is right or wrong."""
    loss: float | None
    """The mean over the seeds."""

    @property
    def shown(self) -> str:
        if self.right is not None:
            return f"{self.said} ({self.right:.0%} right)"
        return self.said + (f" (loss {self.loss:.3g})" if self.loss is not None else "")


def table(
    folders: Mapping[str, Sequence[Path]], split: str, name: str, inputs: bool = False
) -> Table | None:
    """Return the examples on which the rows of a group disagree most; None where they nowhere do.

    `folders` are the runs of each row. With `inputs` the data are read again, and what was asked is shown.

    Raises:
        GraftlabError: `inputs` are wanted, and the data are gone or have changed since.
    """
    methods = {
        label: found
        for label, paths in list(folders.items())[:MOST_METHODS]
        if (found := [rows for path in paths[:MOST_SEEDS] if (rows := _read(Run(path), split))])
    }
    first = next((paths[0] for paths in folders.values() if paths), None)
    if len(methods) < 2 or first is None:
        return None
    problem = Problem.from_json(Run(first).read_environment()["data"])
    common = set.intersection(*({*rows} for found in methods.values() for rows in found))
    judged = {
        index: [_judge([rows[index] for rows in found], problem) for found in methods.values()]
        for index in sorted(common)
        if len({str(rows[index]["label"]) for found in methods.values() for rows in found}) == 1
    }
    apart = {index: gap for index, own in judged.items() if (gap := _gap(own)) > 0}
    worst = sorted(apart, key=lambda index: (-apart[index], index))[:MOST_EXAMPLES]
    if not worst:
        return None
    asked = _inputs(first, split) if inputs else {}
    labels = next(iter(methods.values()))[0]
    lines = [
        (
            Cell(str(index + 1), float(index + 1)),
            *([Cell(asked.get(index, ""))] if asked else []),
            Cell(_named(labels[index]["label"], labels[index], problem)),
            *(Cell(one.shown, mark=_mark(one)) for one in judged[index]),
        )
        for index in worst
    ]
    columns = ("example", *(["asked"] if asked else []), "label", *methods)
    title = f"Examples of {split} on which they disagree most, of {len(apart):,} ({len(common):,} in all)"
    return Table(name, title, columns, tuple(lines), frozenset(["example"]))


def _read(run: Run, split: str) -> dict[int, Prediction]:
    """Return a run's predictions by example; none of what cannot be read, which is said elsewhere."""
    try:
        run.check_if_listed(run.predictions(split))
        return {
            row["index"]: row for row in prediction.read(run.predictions(split)) if "index" in row
        }
    except GraftlabError:
        return {}


def _judge(rows: Sequence[Prediction], problem: Problem) -> Judged:
    said, _ = Counter(_named(row["prediction"], row, problem) for row in rows).most_common(1)[0]
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    kind = problem.of(rows[0]).kind
    right = None
    if kind == "classes" and rows[0].get("label") is not None:
        right = sum(row["prediction"] == row["label"] for row in rows) / len(rows)
    return Judged(said[:LONGEST], right, sum(losses) / len(losses) if losses else None)


def _gap(own: Sequence[Judged]) -> float:
    """Return how far the methods are apart: shares of right seeds; losses where nothing is right or wrong."""
    shares = [one.right for one in own if one.right is not None]
    if len(shares) == len(own):
        return max(shares) - min(shares)
    losses = [one.loss for one in own if one.loss is not None]
    differ = len({one.said for one in own}) > 1
    return max(losses) - min(losses) if differ and len(losses) == len(own) else 0.0


def _mark(one: Judged) -> str:
    return {1.0: "better", 0.0: "worse"}.get(one.right if one.right is not None else -1.0, "")


def _named(value: object, row: Prediction, problem: Problem) -> str:
    """Return a class by its name, a number with four digits, a text as it is."""
    names = problem.of(row).labels
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return str(names[value])
    if isinstance(value, float):
        return f"{value:.4g}"
    return NOTHING if value is None else str(value)[:LONGEST]


def _inputs(folder: Path, split: str) -> dict[int, str]:
    """Return what was asked in each example. `Raises:` GraftlabError: the data are gone or have changed."""
    run = Run(folder)
    file = runfile.resolve(config.read(run.config))
    rows = material.read_again(file, run).splits.get(split, ())
    if not rows:
        raise DataError(f"{split} of {folder} has no rows that could be read again.")
    return {
        place: " / ".join(str(value) for value in inputs_of(row).values() if value is not None)[
            :LONGEST
        ]
        for place, row in enumerate(rows)
    }
