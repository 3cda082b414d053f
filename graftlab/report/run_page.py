"""The page of one run: how well it does, how sure that is, what was verified, and how to repeat it."""

from pathlib import Path

from markupsafe import Markup

from graftlab.contracts import read_notes
from graftlab.report import by_class, gradient_charts, images, made_with, page, repeat
from graftlab.report.chart import Axis, Series, chart
from graftlab.report.page import Page, Section
from graftlab.report.tables import NOTHING, Cell, Table, cell, html
from graftlab.rundir.records import Result
from graftlab.runs import summary, verification
from graftlab.runs.summary import Curve, Summary
from graftlab.runs.verification import Scored


def of(path: Path) -> Page:
    """Return the page of a run, finished or not.

    Raises:
        ConfigError: it is no run.
        CheckpointError: a file of it is damaged.
    """
    shown = summary.summary(path)
    row, result, run = shown.row, shown.result, shown.run
    method, backbone = row.method or "it", row.backbone or "its backbone"
    asked = f"How well does {method} on {backbone} do {row.task or 'its task'}?"
    curves = page.side_by_side([_chart(curve) for curve in shown.curves])
    sections = [Section("Learning curves", [curves])] if shown.curves else []
    if gradients := gradient_charts.charts(run):
        sections.append(Section("Gradients while it trained", [page.side_by_side(gradients)]))
    if result is not None:
        splits = [split for split in ("test", "validation") if split in result["metrics"]]
        sections = [
            Section("Scores", [html(scores(result))]),
            *sections,
            Section("By class", by_class.reports(result, run.path.name, splits)),
            Section("What was verified", [page.points(verification.verified(run, result))]),
            Section("What was not", [page.points(verification.not_verified(run, result))]),
            Section("What it says of itself", [page.points(_notes(result))]),
            Section("Figures", images.html(images.found(path / "analysis"))),
        ]
    made = repeat.made(repeat.sound({run.path.name: run.path}))
    sections += made_with.sections(made, run.config, "graftlab run config.yaml")
    kept = [one for one in sections if one.parts and any(one.parts)]
    return Page(path.absolute().name, asked, _answer(shown), kept)


def _chart(curve: Curve) -> Markup:
    points = list(zip(curve.steps, curve.values, strict=True))
    return chart(
        [Series("", points)], Axis("optimizer steps", whole=True), Axis(curve.name), curve.name
    )


def _answer(shown: Summary) -> str:
    row, result = shown.row, shown.result
    if result is None:
        return f"It is {row.status}, and has no score yet." + (f" {row.cause}" if row.cause else "")
    found = next((one for one in verification.scores(result) if one.value is not None), None)
    if found is None:
        return "It is finished, and none of its metrics is defined."
    said = f"{found.value:.4f} {found.metric} on {found.split}"
    if found.low is not None and found.high is not None:
        said += f", {found.low:.4f} to {found.high:.4f} for other examples of their kind (95 %)"
    right = shown.largest and shown.largest.right.get(found.split)
    if shown.largest and right is not None:
        said += f"; always saying {shown.largest.name} is right {right:.4f} of the time"
    parameters = result["parameters"]
    share = parameters["trainable"] / parameters["total"]
    return (
        f"{said}. {parameters['trainable']:,} of {parameters['total']:,} parameters were trained "
        f"({share:.2%}) in {result['seconds']['training']:.1f} s. It is one seed: another may differ by more "
        f"than the interval."
    )


def scores(result: Result) -> Table:
    """Return a run's scores with their intervals."""
    columns = ("split", "metric", "score", "interval", "examples")
    rows = tuple(
        (Cell(one.split), Cell(one.metric), *_score(one), cell(one.examples))
        for one in verification.scores(result)
    )
    step = f"step {result['selected_step']} of {result['steps']}"
    title = f"{result['name']}, {step}: scores ± their standard error. {verification.INTERVAL}."
    return Table("scores", title, columns, rows, frozenset(columns[2:]))


def _score(one: Scored) -> tuple[Cell, Cell]:
    if one.value is None:
        return Cell(NOTHING, tip=one.reason or ""), Cell(one.reason or "")
    error = "" if one.standard_error is None else f" ± {one.standard_error:.4f}"
    score = Cell(f"{one.value:.4f}{error}", one.value, {"standard error": one.standard_error})
    if one.low is None or one.high is None:
        return score, Cell(NOTHING)
    return score, Cell(f"{one.low:.4f} to {one.high:.4f}", one.low, {"high": one.high})


def _notes(result: Result) -> list[str]:
    return [str(note) for note in read_notes(result.get("notes", ()))]
