"""A grid made wider: one value further where the best stands at an end of those that were tried."""

import logging
from collections.abc import Sequence

from graftlab import runfile
from graftlab.config import Document, Parsed
from graftlab.errors import GraftlabError
from graftlab.study import grids
from graftlab.study.comparison import choices, chosen_at
from graftlab.study.design import Plan, Planned
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
    found: list[Planned] = []
    for cell in cells:
        if cell not in choices(cells, choose, plan.seeds):
            continue
        family = [other for other in cells if other[:3] == cell[:3]]
        tried = [dict(other.setting) for other in family]
        for key, edge in grids.edges(dict(cell.setting), tried).items():
            own = {dict(other.setting)[key] for other in family if other in asked}
            if len({setting[key] for setting in tried} - own) < choose.widen:
                numbers = {n for setting in tried if (n := grids.number(setting[key])) is not None}
                value = further(sorted(numbers), edge)
                at = [run.planned for run in cells[cell] if run.planned.seed in seeds]
                found += [more for run in at if (more := _with(run, key, value)) is not None]
    return found


def further(values: Sequence[float], edge: str) -> float:
    """Return the value behind an end, as far from it as its neighbour: by the same factor where all are
    above 0, else by the same distance."""
    last, before = (values[0], values[1]) if edge == "smallest" else (values[-1], values[-2])
    return rounded(last * last / before if values[0] > 0 else 2 * last - before)


def at_seed(planned: Planned, seed: int) -> Planned:
    """Return a run that was added, at another seed."""
    name = planned.name.removesuffix(f"-seed{planned.seed}") + f"-seed{seed}"
    made = _laid(planned, {"seed": seed, "name": name})
    return Planned(name, planned.cell, seed, made, runfile.resolve(made))


def _with(planned: Planned, key: str, value: float) -> Planned | None:
    """Return a run with another value of a key that varies; None, and a warning, where it is not allowed."""
    last = key.rpartition(".")[2]
    given = int(value) if value == int(value) and _is_whole(planned, key) else value
    before = dict(planned.cell.setting)[key]
    setting = tuple((k, shown(given) if k == key else v) for k, v in planned.cell.setting)
    name = planned.name.replace(f"{last}={before}", f"{last}={shown(given)}")
    try:
        made = _laid(planned, {"name": name, key: given})
        file = runfile.resolve(made)
    except GraftlabError as error:
        log.warning("the grid of %s is not made wider: %s", planned.cell.method, error)
        return None
    return Planned(name, planned.cell._replace(setting=setting), planned.seed, made, file)


def _laid(planned: Planned, values: dict[str, object]) -> Document:
    document = planned.document
    laid = Parsed(dict(document.values), dict(document.places))
    for key, value in values.items():
        laid = with_value(laid, key, value, document.place(*key.split(".")))
    return Document(document.path, laid.values, laid.places)


def _is_whole(planned: Planned, key: str) -> bool:
    """Say whether a key's value is written as a whole number."""
    value: object = planned.document.values
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else None
    return isinstance(value, int)
