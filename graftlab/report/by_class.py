"""What a run has predicted by class: precision, recall and F1 of each, and the confusion matrix of few."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from graftlab.report import page
from graftlab.report.tables import Cell, Table, cell, html
from graftlab.rundir.records import Averages, ClassFigures, ClassReport, Result

MOST_CLASSES = 30  # of which a confusion matrix is drawn


def reports(result: Result, name: str, splits: Sequence[str]) -> list[Markup]:
    """Return what a run's result has by class, folded away under one line each."""
    found: Mapping[str, Sequence[ClassReport]] = result.get("classes", {})
    return [_report(one, name, split) for split in splits for one in found.get(split, ())]


def _report(one: ClassReport, name: str, split: str) -> Markup:
    task = one.get("task")
    macro, error = one["macro"]["f1"], one["calibration"]["expected_error"]
    whose = f"{name}, {task}" if task else name
    averages = f"macro F1 {macro:.4f}, weighted {one['weighted']['f1']:.4f}"
    summary = f"{whose}, {split}: {averages}, calibration error {error:.4f}"
    title = (
        f"{split.capitalize()}, {one['examples']} examples. The calibration error is the mean distance of "
        f"confidence and accuracy over 15 bins of confidence."
    )
    columns = ("class", "precision", "recall", "F1", "examples", "predicted")
    rows = [_class(figures) for figures in one["classes"]]
    rows += [_mean("(macro mean)", one["macro"]), _mean("(weighted mean)", one["weighted"])]
    figures = Table("classes", title, columns, tuple(rows), frozenset(columns[1:]))
    shown = [html(figures)]
    if len(one["classes"]) <= MOST_CLASSES:
        shown.append(html(_matrix(one)))
    return page.details(summary, *shown)


def _class(one: ClassFigures) -> tuple[Cell, ...]:
    shares = (cell(one["precision"]), cell(one["recall"]), cell(one["f1"]))
    return (Cell(one["name"]), *shares, cell(one["examples"]), cell(one["predicted"]))


def _mean(name: str, one: Averages) -> tuple[Cell, ...]:
    return (
        Cell(name),
        cell(one["precision"]),
        cell(one["recall"]),
        cell(one["f1"]),
        Cell(),
        Cell(),
    )


def _matrix(one: ClassReport) -> Table:
    names = [figures["name"] for figures in one["classes"]]
    counts = {(true, said): count for true, said, count in one["confusion"]}
    rows = tuple(
        (
            Cell(name),
            *(_count(counts.get((true, said), 0), true == said) for said in range(len(names))),
        )
        for true, name in enumerate(names)
    )
    title = "Confusion matrix: a row is a class, a column what was predicted."
    return Table("confusion", title, ("", *names), rows, frozenset(names), sortable=False)


def _count(count: int, right: bool) -> Cell:
    return Cell(str(count) if count else "", float(count), mark="better" if right and count else "")
