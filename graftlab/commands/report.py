"""Write a study, a run or a search as one page that opens anywhere, or as tables for papers and cards."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from graftlab.commands._options import AllowCode, Json, emit
from graftlab.terminal import say, say_json


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A study's, a run's or a search's directory.")
    ],
    form: Annotated[
        Literal["html", "markdown", "latex", "csv", "card"],
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="html, markdown, latex, csv, or card: results for a model card. Only html writes a file.",
        ),
    ] = "html",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write it there; a page else as report.html in DIR."
        ),
    ] = None,
    inputs: Annotated[
        bool,
        typer.Option(
            "--inputs", help="Show what was asked in examples; reads the data of the study again."
        ),
    ] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Write a study, a run or a search as one page that opens anywhere, or as tables for papers and cards.

    The page needs no network and reads without its script. Of a study it has the answer in words, the
    ranking with intervals, every difference, curves, costs, tuning, examples on which methods disagree, what
    was not measured, and how to repeat it.
    """
    from graftlab import registry, report
    from graftlab.contracts.plot import COMPARISON
    from graftlab.errors import ConfigError
    from graftlab.report.study_page import DRAWN_HERE
    from graftlab.rundir import files

    if inputs and form != "html":
        raise ConfigError("--inputs is for the page: --format html.")
    if form == "html":
        plots = registry.having("plots", "DRAWS_FROM", COMPARISON)
        others = {name: plot for name, plot in plots.items() if name not in DRAWN_HERE}
        text = report.html(folder, others, inputs)
    else:
        text = report.as_text(folder, form)
    place = out or (folder / "report.html" if form == "html" else None)
    if place is None:
        if as_json:
            say_json({"format": form, "text": text})
        else:
            say(text, end="")
        return
    try:
        files.write_text(place, text)
    except OSError as error:
        raise files.unwritable(place, error) from error
    emit({"format": form, "report": str(place)}, as_json, f"The report is {place}")
