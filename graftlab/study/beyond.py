"""A grid made wider: one value further where the best stands at an end of those that were tried."""

import logging
import math
from collections.abc import Sequence

from graftlab import runfile
from graftlab.config import Document, Parsed, lay_over
from graftlab.errors import GraftlabError
from graftlab.study import grids, labels
from graftlab.study.comparison import choices, chosen_at
from graftlab.study.design import Plan, Planned, of_seed
from graftlab.study.labels import Cell, shown
from graftlab.study.records import Done
from graftlab.study.variation import rounded, with_value

log = logging.getLogger("graftlab")


def beyond(plan: Plan, done: Sequence[Done]) -> list[Planned]:
    """Return the runs at one value more for each method whose chosen setting stands at an end; none where
    `choose.widen` values have been added to that key already, or the field does not allow any further."""
    choose = plan.study.choose
    if choose is None or not choose.widen:
        return []
    cells: dict[Cell, list[Done]] = {}
    for run in done:
        cells.setdefault(run.planned.cell, []).append(run)
    asked, seeds = {run.cell for run in plan.runs}, chosen_at(choose, plan.seeds)
    taken = names(plan, done)
    found: list[Planned] = []
    for cell in cells:
        if cell not in choices(cells, choose, plan.seeds):
            continue
        family = [other for other in cells if other[:3] == cell[:3]]
        tried = [dict(other.setting) for other in family]
        for key, edge in grids.edges(dict(cell.setting), tried).items():
            own = {dict(other.setting).get(key) for other in family if other in asked}
            values = {setting[key] for setting in tried if key in setting}
            if len(values - own) < choose.widen:
                numbers = {n for value in values if (n := grids.number(value)) is not None}
                at = [run.planned for run in cells[cell] if run.planned.seed in seeds]
                value = further(sorted(numbers), edge, all(_is_whole(run, key) for run in at))
                made = [_with(plan, run, key, value, taken) for run in at]
                found += [more for more in made if more is not None]
    return found


def names(plan: Plan, done: Sequence[Done]) -> set[str]:
    """Return what the runs are called that the plan asks for, and those that were added."""
    return {run.name for run in plan.runs} | {run.planned.name for run in done}


def further(values: Sequence[float], edge: str, whole: bool = False) -> float:
    """Return the value behind an end, as far from it as its neighbour: by the same factor where all are
    above 0, else by the same distance. A `whole` number is the next one away from the end."""
    last, before = (values[0], values[1]) if edge == "smallest" else (values[-1], values[-2])
    value = last * last / before if values[0] > 0 else 2 * last - before
    away = math.floor(value) if edge == "smallest" else math.ceil(value)
    if whole and (away or value <= 0):  # no factor leads to 0, which often means never
        return away
    return rounded(value)


def at_seed(plan: Plan, planned: Planned, seed: int, taken: set[str]) -> Planned:
    """Return a run that was added, at another seed; its name joins those that are `taken`."""
    return _made(plan, planned.cell, seed, planned.document, taken)


def _with(plan: Plan, planned: Planned, key: str, value: float, taken: set[str]) -> Planned | None:
    """Return a run with another value of a key that varies; None, and a warning, where it is not allowed."""
    cell, document = planned.cell, planned.document
    setting = tuple((k, shown(value) if k == key else v) for k, v in cell.setting)
    laid = Parsed(document.values, {**document.places})
    laid = with_value(laid, key, value, document.place(*key.split(".")))
    made = Document(document.path, laid.values, laid.places)
    try:
        return _made(plan, cell._replace(setting=setting), planned.seed, made, taken)
    except GraftlabError as error:
        log.warning("the grid of %s is not made wider: %s", cell.method, error)
        return None


def _made(plan: Plan, cell: Cell, seed: int, document: Document, taken: set[str]) -> Planned:
    lists = [sorted({run.cell[at] for run in plan.runs}) for at in range(3)]
    name = labels.run_name(cell, seed, lists, taken)
    below = Parsed(document.values, {**document.places})
    laid = lay_over(below, of_seed(plan.study, seed, name, document, below))
    made = Document(document.path, laid.values, laid.places)
    found = Planned(name, cell, seed, made, runfile.resolve(made))
    taken.add(name)
    return found


def _is_whole(planned: Planned, key: str) -> bool:
    """Say whether a key's value is written as a whole number."""
    value: object = planned.document.values
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else None
    return isinstance(value, int)
