"""The page of a study: what was asked and found, how sure that is, what it cost, and how to repeat it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from graftlab import plots
from graftlab.contracts import Compared, Plot
from graftlab.errors import CheckpointError
from graftlab.report import (
    answer,
    by_class,
    disagreement,
    images,
    made_with,
    page,
    repeat,
    study_costs,
    study_grid,
)
from graftlab.report import study_charts as charts
from graftlab.report import study_tables as tables
from graftlab.report.page import Page, Section
from graftlab.report.study_tables import Group
from graftlab.report.tables import Cell, Table, html, stacked
from graftlab.rundir.run import Run
from graftlab.study.records import Comparison

DRAWN_HERE = ("learning_curves",)
"""Plots of comparisons that the page draws by itself, with its own colours and tips."""
MOST_LINES = 200  # of what did not go as planned


@dataclass(frozen=True)
class Studied:
    """A comparison with the runs that it is of."""

    comparison: Comparison
    out: Path
    """The study's directory."""
    sound: Mapping[str, Path]
    """Runs of which all that is shown can be read."""

    @classmethod
    def of(cls, comparison: Comparison, out: Path) -> "Studied":
        """Look at every run once; one that is damaged is left out, and stands among the holes."""
        folders = {str(run["run"]): out / "runs" / str(run["run"]) for run in comparison.runs}
        return cls(comparison, out, repeat.sound(folders))

    def folders(self, group: Group) -> dict[str, list[Path]]:
        """Return the sound runs of each row of a group, by its label."""
        return {
            row.label: [self.sound[name] for name in row.runs.values() if name in self.sound]
            for row in group
        }


def of(studied: Studied, figures: Mapping[str, Plot], inputs: bool = False) -> Page:
    """Return the page of a study; `figures` are plots of comparisons beside those that it draws by itself.

    With `inputs` the examples on which methods disagree have what was asked.

    Raises:
        GraftlabError: `inputs` are wanted, and the data are gone or have changed since.
    """
    comparison = studied.comparison
    if not comparison.rows:
        said = "There is no run to compare."
        return Page(comparison.name, "Which method does best?", said, [])
    sections = [
        *_overview(comparison),
        _tabs("Ranking", studied, lambda group, n: _table(tables.ranking(comparison, group, f"ranking{n}"))),
        _tabs("Differences", studied, lambda group, n: _table(tables.matrix(comparison, group, f"pairs{n}"))),
        _tabs("Learning curves", studied, lambda group, _: _curves(studied, group)),
        _tabs("Score and cost", studied, lambda group, _: _costs(group)),
        _tabs("Tuning", studied, lambda group, place: _tuning(comparison, group, place)),
        _tabs("Where they disagree", studied, lambda group, place: _apart(studied, group, place, inputs)),
        _tabs("By class", studied, lambda group, _: _classes(studied, group)),
        _figures(studied, figures),
        Section("What was not measured", [page.points(answer.not_measured(comparison))]),
        Section("What did not go as planned", [page.points(unplanned(studied))]),
        *made_with.sections(
            repeat.made(studied.sound), *_made_from(studied.out)
        ),
    ]  # fmt: skip
    asked, found = answer.question(comparison), answer.answer(comparison)
    return Page(comparison.name, asked, found, [one for one in sections if one.parts or one.tabs])


def _made_from(out: Path) -> tuple[Path, str]:
    """Return the file that a study was made from, and its command: of a confirmed winner the search's."""
    search, own = out.parent / "search.yaml", out / "study.yaml"
    if search.is_file() and not own.is_file():
        return search, "graftlab tune search.yaml"
    return own, "graftlab compare study.yaml"


def all_tables(comparison: Comparison) -> list[Table]:
    """Return what the page has as tables, for papers and spreadsheets."""
    every = tables.groups(comparison)
    found = [tables.by_task(comparison)]
    for place, group in enumerate(every):
        found += [
            tables.ranking(comparison, group, f"ranking{place}"),
            tables.matrix(comparison, group, f"pairs{place}"),
        ]
    return [table for table in found if table is not None]


def ranks(comparison: Comparison) -> Table:
    """Return the rankings of all tasks and backbones as one table, for CSV."""
    found = []
    for group in tables.groups(comparison):
        one = tables.ranking(comparison, group, "ranking")
        front = (
            Cell(group[0].task),
            Cell(group[0].backbone),
            Cell(group.metric),
            Cell(group.split),
        )
        score = f"{group.split} {group.metric}"
        names = ("score" if name == score else name for name in one.columns)
        found.append(
            one._replace(
                columns=("task", "backbone", "metric", "split", *names),
                rows=tuple((*front, *row) for row in one.rows),
            )
        )
    return stacked(found, "ranking", comparison.name)


def _tabs(title: str, studied: Studied, parts: Callable[[Group, int], Sequence[Markup]]) -> Section:
    """Return a section with a part for each task and backbone; of one alone without tabs."""
    found = {
        group.title: shown
        for place, group in enumerate(tables.groups(studied.comparison))
        if (shown := [one for one in parts(group, place) if one])
    }
    return (
        Section(title, next(iter(found.values()))) if len(found) == 1 else Section(title, [], found)
    )


def _overview(comparison: Comparison) -> list[Section]:
    table = tables.by_task(comparison)
    return [Section("All tasks", [html(table)])] if table else []


def _table(table: Table | None) -> list[Markup]:
    return [html(table)] if table else []


def _curves(studied: Studied, group: Group) -> list[Markup]:
    return [page.side_by_side(charts.curves(group, studied.folders(group)))]


def _costs(group: Group) -> list[Markup]:
    charts_of = page.side_by_side(charts.costs(group))
    front = study_costs.unbeaten(group)
    if not front:
        return [charts_of]
    known = next(row.forgetting for row in front if row.forgetting)
    names = answer.listed((row.label for row in front), len(front))
    lines = [
        f"No other beats {names} in score, trained parameters or forgetting without being worse in another "
        f"of the three.",
        f"Forgotten is {study_costs.said(known)}.",
    ]
    return [charts_of, page.points(lines)]


def _tuning(comparison: Comparison, group: Group, place: int) -> list[Markup]:
    own = [
        one
        for one in comparison.tunings
        if (one.task, one.backbone) == (group[0].task, group[0].backbone)
    ]
    if not own:
        return []
    return [
        page.side_by_side(charts.tuning(own, group)),
        html(study_grid.grid(own, f"grid{place}")),
    ]


def _apart(studied: Studied, group: Group, place: int, inputs: bool) -> list[Markup]:
    return _table(
        disagreement.table(studied.folders(group), group.split, f"disagreement{place}", inputs)
    )


def _classes(studied: Studied, group: Group) -> list[Markup]:
    """Return of each row what the run of its first seed has predicted by class."""
    found: list[Markup] = []
    for label, paths in studied.folders(group).items():
        run = Run(paths[0]) if paths else None
        if run is not None and run.finished:
            found += by_class.reports(
                run.read_result(), f"{label} ({run.path.name})", (group.split,)
            )
    return found


def _figures(studied: Studied, figures: Mapping[str, Plot]) -> Section:
    pictures = []
    for group in tables.groups(studied.comparison):
        compared = source(studied, group)
        for name, plot in figures.items():
            drawn = None if name in DRAWN_HERE else plots.drawn(plot, compared, group.title)
            if drawn is not None:
                pictures.append(images.drawn(plots.svg(drawn), images.caption(plot)))
    pictures += images.found(studied.out / "analysis")
    return Section("Figures", images.html(pictures))


def source(studied: Studied, group: Group) -> Compared:
    """Return what plots of comparisons draw from."""
    import dataclasses

    rows: list[dict[str, Any]] = [dataclasses.asdict(row) for row in group]
    metric = next((row.metric for row in group if row.metric), "loss")
    return Compared(metric, studied.folders(group), rows)


def unplanned(studied: Studied) -> list[str]:
    """Return what did not go as planned, a sentence each."""
    found = []
    for run in studied.comparison.runs:
        name = run["run"]
        if run.get("cause"):
            found.append(f"{name} is not finished: {run['cause']}")
        elif str(name) not in studied.sound:
            found.append(
                f"{name} is damaged, and left out: {_damage(Run(studied.out / 'runs' / str(name)))}"
            )
        if run.get("not_exact"):
            found.append(f"{name} is not exactly repeatable: {run['not_exact']}")
        if run.get("warnings"):
            found.append(f"{name}: {run['warnings']}")
        if run.get("skipped_steps"):
            found.append(
                f"{name} skipped {run['skipped_steps']} steps whose loss or gradient was not finite"
            )
    for row in studied.comparison.rows:
        found += [f"{row.label} on {row.task} is not paired: {reason}" for reason in row.not_paired]
        found += [
            f"{row.label} on {row.task}: seed {seed} has collapsed" for seed in row.score.collapsed
        ]
    if len(found) > MOST_LINES:
        found = [*found[:MOST_LINES], f"and {len(found) - MOST_LINES} more: runs.csv has them all"]
    return found or ["Nothing: every run finished, and is exactly repeatable on this machine."]


def _damage(run: Run) -> str:
    try:
        run.check()
        run.read_metrics()
    except CheckpointError as error:
        return str(error)
    return "a file of it cannot be read"
