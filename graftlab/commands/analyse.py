"""Ask what training did to a run's weights: tables and figures of each analysis."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands._options import Json, RunFolder

if TYPE_CHECKING:
    from graftlab.inference.analysis import Table

MOST_LINES = 30  # of a table on a terminal


def command(
    run: RunFolder,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="NAMES", help="Analyses, as in weight_change; else all there are."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where results go; else RUN/analysis."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask what training did to a finished run's weights.

    Each analysis is a table, as CSV and Parquet, and the figures that draw from it. The data that the run
    was trained on are not needed.
    """
    from graftlab import inference
    from graftlab.commands._report import print_json
    from graftlab.inference import analysis

    kinds = [name.strip() for name in (kind or "").split(",") if name.strip()]
    analysis.check(kinds)
    tables, figures = analysis.carry_out(inference.load(run), kinds, out)
    if as_json:
        found = {table.name: table.as_json() for table in tables}
        print_json({"run": str(run), "analyses": found, "figures": [str(p) for p in figures]})
        return
    for table in tables:
        _show(table)
    print(f"Everything is in {figures[0].parent if figures else tables[0].files[0].parent}")


def _show(table: "Table") -> None:
    """Print the columns that have values, texts to the left and numbers to the right."""
    names = table.rows[0]._fields if table.rows else ()
    kept = [n for n in names if any(getattr(row, n) is not None for row in table.rows)]
    lines = [[n.replace("_", " ") for n in kept]]
    lines += [[_cell(getattr(row, n)) for n in kept] for row in table.rows[:MOST_LINES]]
    texts = [any(isinstance(getattr(row, n), str) for row in table.rows) for n in kept]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(table.name)
    for line in lines:
        cells = zip(line, widths, texts, strict=True)
        shown = (c.ljust(w) if text else c.rjust(w) for c, w, text in cells)
        print(f"  {'  '.join(shown)}".rstrip())
    if (more := len(table.rows) - MOST_LINES) > 0:
        print(f"  {more} more lines are in {table.files[0]}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
