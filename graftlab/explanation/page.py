"""An analysis as one HTML page that needs nothing beside itself; its findings as text and as JSON too."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from graftlab import registry
from graftlab.contracts.plot import RUN
from graftlab.explanation import findings, sentences
from graftlab.explanation.findings import NULL
from graftlab.explanation.repeats import configurations
from graftlab.explanation.sentences import Told
from graftlab.explanation.tables import Table
from graftlab.explanation.targets import Model
from graftlab.rundir import files

TEMPLATE = Path(__file__).with_name("analysis.html.j2")
PAGE, TEXT, RECORD = "analysis.html", "findings.md", "findings.json"
MOST_LINES = 400
"""Lines of a table that stand on the page; it has to open, and the CSV has them all."""
NO_MEAN = (
    "checkpoint",
    "other_checkpoint",
    "rank",
    "number",
    "rows",
    "columns",
    "dimensions",
    "numel",
    "steps",
    "scale",
    "products",
    "parameters",
)

TITLES = {"cka": "Activations (linear CKA)", "path": "Path of the change"}
"""Of analyses whose name alone says too little."""

Cell = tuple[float | None, float | None]


class Figure(NamedTuple):
    """A figure on the page."""

    svg: str
    caption: str


class Part(NamedTuple):
    """An analysis of one family of tasks on the page."""

    title: str
    about: str
    models: tuple[str, ...]
    means: Mapping[str, Sequence[Cell]]
    """Column -> of each model the mean over its weights, and that of its null."""
    figures: Sequence[Figure]
    fields: Sequence[str]
    lines: Sequence[Sequence[object]]
    total: int
    """Lines that the table has."""
    file: str


def write(
    out: Path, models: Sequence[Model], tables: Sequence[Table], of_runs: Sequence[Path] = ()
) -> Told:
    """Write analysis.html, findings.md and findings.json into a folder that holds what `carry_out` has
    written there; return the findings as they are told. `of_runs` are the figures of the runs themselves.
    """
    found = findings.find({t.name: t.rows for t in tables}, configurations(models))
    told = sentences.tell(found, _without(models, tables))
    title = f"What training did to the weights: {', '.join(model.name for model in models)}"
    parts = [part for table in tables for part in _parts(out, table)]
    if of_runs:
        drawn = [_figure(path, _captions(RUN)) for path in of_runs]
        parts.append(Part("Training", "", (), {}, drawn, (), (), 0, ""))
    given = {"title": title, "told": told, "findings": found, "parts": parts}
    files.write_text(out / PAGE, render({**given, "meanings": _meanings(tables)}))
    files.write_text(out / TEXT, _markdown(title, told))
    record = [{**f._asdict(), "beyond": f.beyond, "said": sentences.sentence(f)} for f in found]
    files.write_json(out / RECORD, {"summary": told.summary, "findings": record})
    return told


def _without(models: Sequence[Model], tables: Sequence[Table]) -> list[str]:
    """Return the models that no table has a line of."""
    told = {getattr(row, "model", None) for table in tables for row in table.rows}
    return [model.name for model in models if told and model.name not in told]


def render(given: Mapping[str, object]) -> str:
    """Return the page; every value is escaped, but for the figures that are drawn here."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": cell, "label": sentences.label, "svg": Markup}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(given)


def _parts(out: Path, table: Table) -> list[Part]:
    """Return the parts of a table, one a family of tasks."""
    about = (registry.find("analyses", table.name).__doc__ or "").partition("\n")[0]
    families = list(dict.fromkeys(getattr(row, "task_type", None) for row in table.rows)) or [None]
    drawn = [path for path in table.files if path.suffix == ".png"]
    captions = _captions(table.name)
    parts = []
    for family in families:
        own = [row for row in table.rows if getattr(row, "task_type", None) == family]
        figures = [
            _figure(path, captions)
            for path in drawn
            if not family or path.parent.name == files.plain(family)
        ]
        fields: tuple[str, ...] = getattr(own[0], "_fields", ()) if own else ()
        models, means = _means(own, fields)
        title = TITLES.get(table.name, table.name.capitalize()) + (f", {family}" if family else "")
        lines = [[getattr(row, name) for name in fields] for row in own[:MOST_LINES]]
        file = os.path.relpath(table.files[0], out)
        parts.append(Part(title, about, models, means, figures, fields, lines, len(own), file))
    return parts


def _means(
    rows: Sequence[object], fields: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, list[Cell]]]:
    """Return the models (or pairs), gradients by mode, and the mean of each column over the weights at their
    last checkpoint."""
    held: dict[str, list[object]] = {}
    for row in findings.at_last(rows):
        if not findings.together(row):
            mode = getattr(row, "mode", None)
            held.setdefault(findings.name(row) + (f", {mode}" if mode else ""), []).append(row)
    columns = [c for c in fields if c not in NO_MEAN and not c.startswith(NULL)]
    columns = [c for c in columns if not re.search(r"_\d$", c)]  # one of ten: in the whole table
    means: dict[str, list[Cell]] = {}
    for column in columns:
        values = [(_mean(own, column), _mean(own, f"{NULL}{column}")) for own in held.values()]
        if any(value is not None for value, _ in values):
            means[column] = values
    return tuple(held), means


def _mean(rows: Sequence[object], column: str) -> float | None:
    values = [getattr(row, column, None) for row in rows]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return sum(numbers) / len(numbers) if numbers else None


def _captions(source: str) -> dict[str, str]:
    """Return what stands below each figure that draws from a source, by the name of its file."""
    return {
        plot.NAME or name: f"{plot.TITLE}. {' '.join((plot.__doc__ or '').split())}"
        for name, plot in registry.having("plots", "DRAWS_FROM", source).items()
    }


def _figure(path: Path, captions: Mapping[str, str]) -> Figure:
    text = path.with_suffix(".svg").read_text(encoding="utf-8")
    return Figure(text[text.index("<svg") :], captions[path.stem])


def _meanings(tables: Sequence[Table]) -> dict[str, str]:
    """Return what each quantity is, where the spectra are on the page."""
    if not any(table.name == "spectra" and table.rows for table in tables):
        return {}
    quantities = {name: registry.find("quantities", name) for name in registry.names("quantities")}
    return {name: " ".join((q.__doc__ or "").split()) for name, q in quantities.items()}


def _markdown(title: str, told: Told) -> str:
    lines = [f"# {_plain(title)}", "", _plain(told.summary), ""]
    for heading, said in (("Beyond their null", told.beyond), ("Between models", told.between)):
        if said:
            lines += [f"## {heading}", "", *(f"- {_plain(line)}" for line in said), ""]
    if told.not_told:
        lines += [_plain(told.not_told), ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return a text in which nothing is Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|$&])", r"\\\1", text)


def cell(value: object) -> str:
    """Return a value of a table as text: numbers with four digits that count."""
    if value is None:
        return ""
    return sentences.number(value) if isinstance(value, float) else str(value)
