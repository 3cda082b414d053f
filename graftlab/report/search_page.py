"""The page of a search: what was best, what tuning has bought, which ranges were too narrow, every trial."""

import csv
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from graftlab import registry
from graftlab.contracts.plot import SEARCH
from graftlab.errors import CheckpointError, Place
from graftlab.report import images, made_with, page, repeat
from graftlab.report.chart import Axis, Series, chart
from graftlab.report.images import Picture
from graftlab.report.page import Page, Section
from graftlab.report.tables import Cell, Table, html
from graftlab.rundir.records import Json

MOST_TRIALS = 2_000
FILES = ("search.json", "summary.json", "trials.csv")
SPREAD = 10.0
"""A choice whose values span so many times the smallest is drawn on a logarithmic axis."""
Trial = Mapping[str, str]


class Searched(NamedTuple):
    """What the files of a search say."""

    name: str
    objectives: Sequence[str]
    higher: Sequence[bool]
    space: Mapping[str, Mapping[str, Json]]
    trials: Sequence[Trial]
    best: Mapping[str, Json] | None
    default: float | None
    edges: Mapping[str, str]
    expected: Sequence[float]
    causes: Mapping[str, int]
    limits: Mapping[str, int]


def read(out: Path) -> Searched:
    """Return a search from its files.

    Raises:
        CheckpointError: it has written none yet, or they are damaged.
    """
    try:
        search, summary = (
            json.loads((out / name).read_text(encoding="utf-8")) for name in FILES[:2]
        )
        with (out / FILES[2]).open(encoding="utf-8", newline="") as file:
            trials = list(itertools.islice(csv.DictReader(file), MOST_TRIALS))
        return Searched(
            str(search["name"]), [str(one["name"]) for one in summary["objectives"]],
            [bool(one["higher"]) for one in summary["objectives"]], dict(search["space"]), trials,
            summary["best"], summary["default"], dict(summary["edges"]), list(summary["expected_best"]),
            dict(summary["causes"]), dict(summary.get("limits", {})),
        )  # fmt: skip
    except FileNotFoundError as error:
        said = f"{error.filename} is not there yet: `graftlab tune` writes it when its trials are over."
        raise CheckpointError(said, kind="not_finished") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"the files of the search cannot be read ({type(error).__name__}: {error})."
        again = ("Write them again with `graftlab tune`.",)
        raise CheckpointError(said, again, kind="damaged", place=Place(str(out))) from error


def of(out: Path) -> Page:
    """Return the page of a search. `Raises:` CheckpointError: as `read`."""
    found = read(out)
    asked = f"Which {', '.join(found.space)} give the best {' and '.join(found.objectives)} on validation?"
    charts = [*_history(found), *_bought(found), *_slices(found)]
    sections = [
        Section("Trials", [page.side_by_side(charts), html(trials(found))]),
        Section("Figures", images.html(_figures(out))),
        Section("What was not measured", [page.points(_not_measured(found, out))]),
        *made_with.sections(
            repeat.made(_sound(found, out)), out / "search.yaml", "graftlab tune search.yaml"
        ),
    ]
    return Page(found.name, asked, _answer(found), [one for one in sections if any(one.parts)])


def trials(found: Searched) -> Table:
    """Return every trial; of several objectives those that have ended come in the order of the first."""
    columns = ("trial", "state", *found.space, *found.objectives, "seconds", "cause")
    columns = tuple(dict.fromkeys(columns))  # seconds may be an objective
    best = str(found.best["trial"]) if found.best else None
    rows = tuple(
        tuple(
            Cell(
                _digits(given := one.get(name) or ""), _number(given),
                mark="chosen" if one.get("trial") == best and name in found.objectives else "",
            )
            for name in columns
        )
        for one in found.trials
    )  # fmt: skip
    title = "Every trial, scored on validation; the best is marked."
    return Table("trials", title, columns, rows, frozenset({"trial", "seconds", *found.objectives}))


def _figures(out: Path) -> list[Picture]:
    """Return the figures that `graftlab tune` has drawn; what a plot is read by stands below it."""
    drawn = registry.having("plots", "DRAWS_FROM", SEARCH)
    said = {plot.NAME or name: images.caption(plot) for name, plot in drawn.items()}
    pictures = images.found(out, deep=False)
    return [one._replace(caption=said.get(one.caption, one.caption)) for one in pictures]


def _answer(found: Searched) -> str:
    ended = sum(one.get("state") == "complete" for one in found.trials)
    said = f"{len(found.trials)} trials, {ended} of which ended by themselves."
    if found.best is None:
        return said + (" No one trial is best." if ended else " None has a score.")
    scores, values = found.best["scores"], found.best["values"]
    assert isinstance(scores, dict)
    assert isinstance(values, dict)
    name = found.objectives[0]
    told = ", ".join(f"{key} {_shown(value)}" for key, value in values.items())
    said += f" The best {name}, {_shown(scores.get(name))}, is that of trial {found.best['trial']}: {told}."
    if found.default is not None:
        said += f" The settings of the base have {_shown(found.default)}."
    for key, edge in found.edges.items():
        said += f" {key} is at the {edge} value allowed: what lies beyond may be better."
    return (
        said
        + " The best of many is a little too good on the split that chose it; test has not been looked at."
    )


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _not_measured(found: Searched, out: Path) -> list[str]:
    said = ["Whether the difference between trials is more than chance: every trial has one seed."]
    if not (out / "confirmed" / "comparison.json").is_file():
        said.append("The best settings on test, at fresh seeds: winner.seeds asks for that.")
    else:
        said.append(
            "The best settings on test, at fresh seeds, are the study in the folder `confirmed`."
        )
    said += [f"{count} trials did not train: more {name} than at_most allows."
             for name, count in found.limits.items()]  # fmt: skip
    said += [f"{count} trials failed: {cause}" for cause, count in found.causes.items()]
    return said


def _history(found: Searched) -> list[Markup]:
    """Return each objective over the trials, and the best so far of those that ended by themselves."""
    drawn = []
    for name, higher in zip(found.objectives, found.higher, strict=True):
        known = [(n, value) for one in found.trials if (n := _number(one.get("trial"))) is not None
                 and (value := _number(one.get(name))) is not None]  # fmt: skip
        ended = {
            _number(one.get("trial")) for one in found.trials if one.get("state") == "complete"
        }
        own = [
            (at, value) for at, value in known if at in ended
        ]  # a pruned one's is of its last step
        best = list(itertools.accumulate((value for _, value in own), max if higher else min))
        line = [(at, value) for (at, _), value in zip(own, best, strict=True)]
        series = [Series("trials", known, joined=False), Series("best so far", line)]
        drawn.append(chart(series, Axis("trial", whole=True), Axis(name), f"{name} of every trial"))
    return drawn


def _bought(found: Searched) -> list[Markup]:
    points = [(float(n), value) for n, value in enumerate(found.expected, start=1)]
    name = found.objectives[0]
    title = f"Expected best {name} of so many trials in any order"
    return (
        [chart([Series("", points)], Axis("trials", whole=True), Axis(name), title)]
        if len(points) > 1
        else []
    )


def _slices(found: Searched) -> list[Markup]:
    """Return the first objective over each field that is a number, the best trial ringed."""
    drawn, name = [], found.objectives[0]
    for field in found.space:
        known = [(at, value, one) for one in found.trials if (at := _number(one.get(field))) is not None
                 and (value := _number(one.get(name))) is not None]  # fmt: skip
        values = [at for at, _, _ in known]
        if len(set(values)) < 2:
            continue
        best = str(found.best["trial"]) if found.best else None
        ringed = frozenset(n for n, (_, _, one) in enumerate(known) if one.get("trial") == best)
        tips = [f"trial {one.get('trial')}: {value:.4g} at {at:.4g}" for at, value, one in known]
        points = [(at, value) for at, value, _ in known]
        given = found.space[field]
        log = bool(given.get("log")) or (
            "choice" in given and min(values) > 0 and max(values) >= SPREAD * min(values)
        )
        series = [Series("", points, joined=False, tips=tips, ringed=ringed)]
        drawn.append(chart(series, Axis(field, log), Axis(name), f"{name} over {field}"))
    return drawn


def _sound(found: Searched, out: Path) -> dict[str, Path]:
    names = [one.get("run") or "" for one in found.trials]
    return repeat.sound({name: out / "runs" / name for name in names if name and "/" not in name})


def _digits(text: str) -> str:
    """Return a fraction with four digits: trials.csv has all of them."""
    number = _number(text)
    whole = number is None or not math.isfinite(number) or text.lstrip("-").isdecimal()
    return text if whole else f"{number:.4g}"


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
