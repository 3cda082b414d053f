"""Analyses carried out: their tables, and the plots that draw from them."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftlab import analyses, plots, registry
from graftlab.config import Paths
from graftlab.contracts import Asked, Subject
from graftlab.contracts.analysis import NO_CHANGE
from graftlab.contracts.plot import RUN
from graftlab.errors import ConfigError, unknown
from graftlab.explanation import texts
from graftlab.explanation.chosen import Chosen, Unchanged
from graftlab.explanation.kept import OnDisk
from graftlab.explanation.repeats import configurations
from graftlab.explanation.targets import Model
from graftlab.rundir import files

log = logging.getLogger("graftlab")
READING = "reading"
"""What is shown as under way before the first analysis."""


@dataclass(frozen=True)
class Table:
    """What an analysis has found."""

    name: str
    rows: Sequence[Any]
    """The lines, NamedTuples of the analysis's row."""
    files: Sequence[Path]
    """The table as CSV and Parquet, then the figures."""

    def as_json(self) -> dict[str, object]:
        return {
            "rows": [row._asdict() for row in self.rows],
            "files": [str(path) for path in self.files],
        }


def check(kinds: Sequence[str]) -> None:
    """Refuse an analysis that there is not. `Raises:` ConfigError."""
    for kind in kinds:
        if kind not in registry.names("analyses"):
            raise ConfigError(f"{unknown('analysis', kind, registry.names('analyses'))}")


def asked(how: Asked | None = None) -> Asked:
    """Return how analyses are asked, with results kept in the cache; on the texts that come with graftlab
    unless it names others."""
    how = how or Asked()
    sample = how.texts if how.texts.values else texts.read()
    return replace(how, texts=sample, kept=OnDisk(Paths().cache / "analysis"))


def carry_out(
    models: Sequence[Model],
    out: Path,
    kinds: Sequence[str] = (),
    how: Asked | None = None,
    matrices: Sequence[str] = (),
    figures: bool = True,
    shown: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Table], list[Path]]:
    """Return the tables of some analyses, all unless named, and the figures of the runs themselves.

    Everything is written into `out`. `matrices` are names of modules, or patterns of weights' names; all
    that were changed unless given. Without `figures` there are tables alone. `shown` is called with the name
    of the analysis under way (`READING` before the first), how many of its parts are done, and of how many.

    Raises:
        ConfigError: there is no such analysis or weight, a model does not have what is asked for, or no
            model changes a weight. One beside others is left out, and that is said.
    """
    check(kinds)
    quantities = {name: registry.find("quantities", name) for name in registry.names("quantities")}
    how = replace(how or asked(), quantities=quantities)
    subjects = _told([subject for model in models for subject in model.subjects], shown)
    if matrices:
        subjects = [Chosen(subject, matrices) for subject in subjects]
        if not any(subject.names() for subject in subjects):
            raise ConfigError(f"no weight that was changed is named {', '.join(matrices)}.")
    found = {}
    for name in kinds or registry.names("analyses"):
        analysis = registry.find("analyses", name)
        told = replace(how, said=functools.partial(shown, name)) if shown else how
        rows = list(analysis.rows(subjects, told))
        if rows or name in kinds:
            found[name] = (analysis, rows)
    out.mkdir(parents=True, exist_ok=True)
    named = configurations(models)
    called = list(dict.fromkeys(named.values()))
    tables = []
    for name, (analysis, rows) in found.items():
        place = out / (analysis.FILE or name)
        place.parent.mkdir(parents=True, exist_ok=True)
        written = analyses.write(rows, analysis.row(how), place.parent, place.name)
        drawn = _figures(name, _merged(rows, named), called, place.parent) if figures else []
        tables.append(Table(name, rows, [*written, *drawn]))
    of_run = registry.having("plots", "DRAWS_FROM", RUN) if figures else {}
    runs = [model for model in models if model.run and of_run]
    return tables, [f for model in runs for f in _of_run(of_run, model, out, len(models))]


def _told(
    subjects: Sequence[Subject], shown: Callable[[str, int, int], None] | None
) -> list[Subject]:
    """Return the subjects, those that change no weight without any; each of them is said once.

    Their changes are read, which takes a while where a model has to be loaded for each.

    Raises:
        ConfigError: none of them changes a weight.
    """
    found: list[Subject] = []
    without: dict[str, ConfigError] = {}
    for done, subject in enumerate(subjects, start=1):
        try:
            subject.names()
        except ConfigError as error:
            if error.problems[0].kind != NO_CHANGE:
                raise
            without[str(error)] = error
            found.append(Unchanged(subject))
        else:
            found.append(subject)
        if shown:
            shown(READING, done, len(subjects))
    if all(isinstance(subject, Unchanged) for subject in found) and without:
        raise next(iter(without.values()))
    for said in without:
        log.warning("%s It is left out.", said)
    return found


def _of_run(of_run: dict[str, Any], model: Model, out: Path, count: int) -> list[Path]:
    folder = out if count == 1 else out / files.plain(model.name)
    folder.mkdir(parents=True, exist_ok=True)
    return plots.draw(of_run, model.run, model.name, folder)


def _merged(rows: Sequence[Any], named: Mapping[str, str]) -> list[Any]:
    """Return the rows with runs of one configuration under its name, so that they are drawn as one."""
    return [
        row._replace(**{
            field: named.get(getattr(row, field), getattr(row, field))
            for field in ("model", "other") if field in row._fields
        })
        for row in rows
    ]  # fmt: skip


def _of(rows: Sequence[Any], models: Sequence[str]) -> str:
    """Return the names of the models that rows are of; all where they do not say it."""
    found = {getattr(row, field, None) for row in rows for field in ("model", "other")}
    return ", ".join([name for name in models if name in found] or models)


def _figures(name: str, rows: Sequence[Any], models: Sequence[str], folder: Path) -> list[Path]:
    """Draw a table's plots, those of each family of tasks in a folder of its own."""
    drawn = registry.having("plots", "DRAWS_FROM", name)
    families = list(dict.fromkeys(getattr(row, "task_type", None) for row in rows)) or [None]
    figures = []
    for family in families:
        place = folder / files.plain(family) if family else folder
        place.mkdir(parents=True, exist_ok=True)
        own = [row for row in rows if getattr(row, "task_type", None) == family]
        figures += plots.draw(drawn, own, _of(own, models), place)
    return figures
