"""Ask what training did to weights: tables and figures of each analysis."""

import dataclasses
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands._options import Json
from graftlab.terminal import say, say_json, tell

if TYPE_CHECKING:
    from graftlab.explanation import Model, Table

MOST_LINES = 30  # of a table on a terminal
LINE_EVERY_S = 10.0  # of progress
MOST_SAID = 3  # findings of a kind there; the page has more


def command(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Runs, PEFT adapters, folders with checkpoint-*/, BASE:TUNED, or YAML files that list them.",
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="NAMES", help="Analyses, as in spectra; else all there are."
        ),
    ] = None,
    matrices: Annotated[
        str | None,
        typer.Option(
            "--matrices",
            metavar="NAMES",
            help="Only weights of these modules (q_proj,v_proj) or patterns (*.layers.0.*).",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="N,N", help="Only these checkpoints; else all kept ones."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="MODEL", help="What adapters or tuned models were trained from."
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="K", min=1, help="Vectors that make up a subspace.")
    ] = 10,
    full: Annotated[
        bool, typer.Option("--full", help="Compare all singular vectors, as the source does.")
    ] = False,
    null: Annotated[
        bool, typer.Option("--null/--no-null", help="Say what a random change would have given.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of random changes.")] = 0,
    examples: Annotated[
        int,
        typer.Option(
            "--examples",
            metavar="N",
            min=0,
            help="Losses and gradients on so many of a run's validation examples; else on one sentence.",
        ),
    ] = 0,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts",
            metavar="FILE",
            help="General texts, for activations and losses: lines, or a column text; else 64 of graftlab's.",
        ),
    ] = None,
    num_texts: Annotated[
        int,
        typer.Option(
            "--num-texts", metavar="N", min=4, help="Only so many of them, from the first."
        ),
    ] = 64,
    keep_vectors: Annotated[
        bool,
        typer.Option("--keep-vectors", help="Also keep all singular values and the top vectors."),
    ] = False,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Draw figures beside the tables.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where results go; else analysis, in a run's own folder."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask what training did to the weights of runs, adapters and models.

    Each analysis is a table, as CSV and Parquet, and the figures that draw from it; a page has them all, with
    what stands out. Data are not needed. What is killed goes on where it was.
    """
    from graftlab import explanation
    from graftlab.contracts import Asked
    from graftlab.explanation import texts as sample
    from graftlab.explanation.spool import Spool
    from graftlab.explanation.vectors import Vectors

    kinds, wanted = (
        _names(kind),
        explanation.Options(base, _numbers(steps), tuple(_names(matrices))),
    )
    explanation.check(kinds)
    read = sample.read(texts, num_texts)
    asked = explanation.asked(
        Asked(top=top, full=full, null=null, seed=seed, examples=examples, texts=read)
    )
    with Spool() as spool:
        models = explanation.find(targets, wanted, spool)
        where = out or _place(models)
        if keep_vectors:
            kept = Vectors(where / "svd_analysis" / "vectors")
            asked = dataclasses.replace(asked, vectors=kept.put)
        tables, drawn = explanation.carry_out(
            models, where, kinds, asked, wanted.matrices, figures, Progress()
        )
        told = explanation.write(where, models, tables, drawn)
    if as_json:
        found = {table.name: table.as_json() for table in tables}
        shown = [str(path) for path in drawn]
        say_json({"analyses": found, "figures": shown, "findings": told._asdict()})
        return
    for table in tables:
        _show(table)
    for line in (told.summary, *told.beyond[:MOST_SAID], *told.between[:MOST_SAID]):
        say(line)
    say(f"Everything is in {where}; {where / 'analysis.html'} has it on one page")


class Progress:
    """Says where an analysis is and about how long it will take, on the standard error, every ten seconds."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def __call__(self, name: str, done: int, parts: int) -> None:
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S:
            left = round((now - self._began) / done * (parts - done))
            tell(f"{name}: {done} of {parts}, {timedelta(seconds=left)} left")
            self._last = now
        if done == parts:  # the next analysis begins
            self._began = now


def _names(given: str | None) -> list[str]:
    return [name.strip() for name in (given or "").split(",") if name.strip()]


def _numbers(given: str | None) -> tuple[int, ...] | None:
    from graftlab.errors import Argument, ConfigError, Place

    try:
        return tuple(int(step) for step in _names(given)) or None
    except ValueError:
        place = Place(argument=Argument("steps"))
        raise ConfigError(
            f"{given!r}: steps are whole numbers, as in 100,200.", place=place, given=given
        ) from None


def _place(models: "list[Model]") -> Path:
    """Return a single run's own folder, else one here."""
    only = models[0].run if len(models) == 1 else None
    return (only or Path()) / "analysis"


def _show(table: "Table") -> None:
    """Print the columns that have values, texts to the left and numbers to the right."""
    from graftlab import registry

    names = table.rows[0]._fields if table.rows else ()
    kept = [n for n in names if any(getattr(row, n) is not None for row in table.rows)]
    if chosen := registry.find("analyses", table.name).SHOWN:
        kept = [name for name in kept if name in chosen]
    lines = [[n.replace("_", " ") for n in kept]]
    lines += [[_cell(getattr(row, n)) for n in kept] for row in table.rows[:MOST_LINES]]
    texts = [any(isinstance(getattr(row, n), str) for row in table.rows) for n in kept]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    say(table.name)
    for line in lines:
        cells = zip(line, widths, texts, strict=True)
        shown = (c.ljust(w) if text else c.rjust(w) for c, w, text in cells)
        say(f"  {'  '.join(shown)}".rstrip())
    if (more := len(table.rows) - MOST_LINES) > 0:
        say(f"  {more} more lines are in {table.files[0]}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
