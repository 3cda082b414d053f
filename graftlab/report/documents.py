"""What a folder holds, and its report: one page, or tables as Markdown, LaTeX or CSV, or a card's results."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from graftlab import plots
from graftlab.contracts import Plot
from graftlab.errors import CheckpointError, ConfigError, Place
from graftlab.report import card_block, page, run_page, search_page, study_page
from graftlab.report import tables as writers
from graftlab.report.study_page import DRAWN_HERE, Studied
from graftlab.report.study_tables import groups
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.study.records import Comparison

Kind = Literal["study", "run", "search"]
FORMS = ("html", "markdown", "latex", "csv", "card")
COMPARISON, SEARCH = "comparison.json", "search.json"


def kind(path: Path) -> Kind:
    """Return what a folder holds.

    Raises:
        ConfigError: neither a study that was compared, nor a run, nor a search.
    """
    if (path / SEARCH).is_file():
        return "search"
    if (path / COMPARISON).is_file():
        return "study"
    if Run(path).started:
        return "run"
    if (path / "plan.json").is_file():
        raise ConfigError(
            f"{path} is a study that is not compared yet. `graftlab compare` its file goes on with it, and "
            f"writes the page.",
            kind="not_finished", given=str(path),
        )  # fmt: skip
    raise ConfigError(
        f"{path} holds neither a study ({COMPARISON}) nor a run (config.yaml) nor a search ({SEARCH}).",
        kind="missing", given=str(path),
    )  # fmt: skip


def comparison(path: Path) -> Comparison:
    """Return the comparison of a study's folder.

    Raises:
        CheckpointError: it is damaged, or of another version.
    """
    file = path / COMPARISON
    try:
        return _adapter().validate_python(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise CheckpointError(
            f"it is damaged, or another version has written it ({what}).",
            ("The same `graftlab compare` writes it anew; finished runs are not repeated.",),
            kind="damaged", place=Place(str(file)),
        ) from error  # fmt: skip


@functools.cache
def _adapter() -> TypeAdapter[Comparison]:
    return TypeAdapter(Comparison)


def html(path: Path, figures: Mapping[str, Plot], inputs: bool = False) -> str:
    """Return the page of a study, a run or a search.

    `figures` are plots of comparisons, drawn beside those of the page; with `inputs` examples are shown with
    what was asked.

    Raises:
        ConfigError, CheckpointError: as `kind`, or a file is damaged.
        DataError: `inputs` are wanted, and the data are gone or have changed since.
    """
    found = kind(path)
    if found == "study":
        studied = Studied.of(comparison(path), path)
        return page.render(study_page.of(studied, figures, inputs))
    return page.render(run_page.of(path) if found == "run" else search_page.of(path))


def as_text(path: Path, form: str) -> str:
    """Return the tables of a folder in a form of `FORMS` that is no page. `Raises:` as `html`."""
    found = kind(path)
    if form == "card":
        if found == "search":
            said = f"{path} is a search: a card is of a run or a study."
            raise ConfigError(said, kind="not_allowed", given=form)
        return card_block.of_run(path) if found == "run" else card_block.of_study(comparison(path))
    if found == "study":
        shown = comparison(path)
        every = [study_page.ranks(shown)] if form == "csv" else study_page.all_tables(shown)
        return writers.texts(every, form)
    if found == "search":
        return writers.texts([search_page.trials(search_page.read(path))], form)
    run = Run(path)
    if not run.finished:
        raise ConfigError(f"{path} is not finished: it has no scores.", kind="not_finished")
    return writers.texts([run_page.scores(run.read_result())], form)


def write(found: Comparison, out: Path, figures: Mapping[str, Plot]) -> None:
    """Write comparison.html, and each of the plots as NAME.png and .svg (NAME-2.png, ... for a second task
    or backbone)."""
    studied = Studied.of(found, out)
    for number, group in enumerate(groups(found)):
        compared = study_page.source(studied, group)
        for name, plot in figures.items():
            figure = plots.drawn(plot, compared, group.title)
            if figure is not None:
                plots.write(figure, out, f"{name}-{number + 1}" if number else name)
    others = {name: plot for name, plot in figures.items() if name not in DRAWN_HERE}
    files.write_text(out / "comparison.html", page.render(study_page.of(studied, others)))
