"""How a terminal shows predictions by class: precision, recall and F1, who is taken for whom, calibration."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftlab.rundir.records import Averages, ClassFigures, ClassReport

MOST = 8  # classes that are shown; result.json has all
MOST_CONFUSED = 5
LONGEST = 32  # characters of a class name


def class_lines(reports: "Iterable[ClassReport]") -> list[str]:
    """Return a block of lines for each report, each with an empty line behind it."""
    return [line for report in reports for line in (*_block(report), "")]


def _block(report: "ClassReport") -> list[str]:
    shown = sorted(report["classes"], key=lambda c: -c["examples"])[:MOST]
    more = len(report["classes"]) - len(shown)
    head = [report.get("task", "class"), "precision", "recall", "F1", "examples", "predicted"]
    rows = [
        head,
        *([*_shares(_cut(c["name"]), c), str(c["examples"]), str(c["predicted"])] for c in shown),
        *(
            [*_shares(name, mean), "", ""]
            for name, mean in (("macro", report["macro"]), ("weighted", report["weighted"]))
        ),
    ]
    lines = _columns(rows)
    if more > 0:
        lines.insert(len(shown) + 1, f"  ... and {more} more classes, in result.json")
    confused = _confused(report)
    return [*lines, *confused, f"  calibration error {report['calibration']['expected_error']:.4f}"]


def _confused(report: "ClassReport") -> list[str]:
    """Return the whole matrix of few classes; of many, those that are taken for each other most often."""
    names = [_cut(c["name"]) for c in report["classes"]]
    if len(names) <= MOST:
        counts = {(true, said): n for true, said, n in report["confusion"]}
        numbers = range(len(names))
        rows = [["true \\ predicted", *names]]
        rows += [
            [names[true], *(str(counts.get((true, said), 0)) for said in numbers)]
            for true in numbers
        ]
        return ["", *_columns(rows), ""]
    wrong = sorted(
        (cell for cell in report["confusion"] if cell[0] != cell[1]), key=lambda c: -c[2]
    )
    return [
        f"  {names[true]} taken for {names[said]}: {n}" for true, said, n in wrong[:MOST_CONFUSED]
    ]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"  {row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{n}}" for cell, n in zip(row[1:], widths[1:], strict=True)).rstrip()
        for row in rows
    ]


def _shares(name: str, figures: "ClassFigures | Averages") -> list[str]:
    return [name, *map(_share, (figures["precision"], figures["recall"], figures["f1"]))]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
