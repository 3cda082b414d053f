"""What the runs of a study say about its methods: a row for each, the grid it was chosen from, the holes.

Means and standard deviations are over seeds (n - 1 in the denominator). A run without a value, because
it failed or its metric is not defined, is left out of the mean and counted. Ranks follow the differences of
pairs: rows that cannot be told apart share them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graftlab.contracts import read_notes
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run
from graftlab.statistics import ranks
from graftlab.study import forgetting, grids, own_splits
from graftlab.study.design import Plan
from graftlab.study.differences import differences
from graftlab.study.findings import Difference
from graftlab.study.labels import Cell
from graftlab.study.records import Comparison, Done, Row
from graftlab.study.rows import last_scores, row_of
from graftlab.study.section import Choose

PAIRED_BY = {
    "steps": "optimizer steps",
    "batch_size": "examples a step",
    "fingerprint": "data fingerprint",
}
"""What has to be the same for two runs to differ by their method alone, and what it is called."""


SAME = 1e-12  # two means of the same values in another order


def compare(
    plan: Plan, done: Sequence[Done], unasked: Mapping[Path, str] = MappingProxyType({})
) -> Comparison:
    """Return the comparison that the runs allow as they stand; `unasked` has by their folders the runs of
    which it is not known what they have forgotten, with the causes."""
    cells: dict[Cell, list[Done]] = {}
    for run in done:
        cells.setdefault(run.planned.cell, []).append(run)
    choose, chosen = plan.study.choose, _chosen(plan, cells)
    rows = [row_of(cell, runs) for cell, runs in cells.items() if cell in chosen]
    grid: list[Row] = []
    if choose:
        seeds = chosen_at(choose, plan.seeds)
        for cell, runs in cells.items():
            row = row_of(cell, [run for run in runs if run.planned.seed in seeds])
            row.chosen = cell in chosen
            grid.append(row)
        rows += _without_choice(cells, chosen)
    groups = _groups(rows)
    for group in groups:
        split = _split({row.runs[seed] for row in group for seed in row.runs}, done)
        for row in group:
            row.ranked_by = split
            row.label = _label(row, choose is not None or plan.chosen_by is not None)
        _pair(group, plan, cells)
    folder = done[0].folder.parent if done else None
    if folder is not None and plan.forgetting is not None:
        for row in rows:
            row.forgetting = forgetting.of_row(row, folder, plan.forgetting.name)
            causes = {seed: unasked.get(folder / name) for seed, name in row.runs.items()}
            row.forgetting_holes = {seed: cause for seed, cause in causes.items() if cause}
    drawn = own_splits.overlaps(rows, folder) if folder and plan.study.split_with_seed else {}
    found = differences(groups, folder, drawn)
    for group in groups:
        _rank(group, found)
    records = tuple(_record(run, run.planned.cell in chosen) for run in done)
    by = (
        f"validation, {choose.seeds} seed{'s' * (choose.seeds == 'all')}"
        if choose
        else plan.chosen_by
    )
    return Comparison(
        plan.name, plan.seeds, by, tuple(rows), tuple(grid), records, found, grids.of_grid(grid)
    )


def reported(plan: Plan, done: Sequence[Done]) -> list[Done]:
    """Return the finished runs that a comparison has in its rows."""
    cells: dict[Cell, list[Done]] = {}
    for run in done:
        cells.setdefault(run.planned.cell, []).append(run)
    chosen = _chosen(plan, cells)
    return [run for run in done if run.planned.cell in chosen and run.result is not None]


def _chosen(plan: Plan, cells: Mapping[Cell, Sequence[Done]]) -> set[Cell]:
    choose = plan.study.choose
    return choices(cells, choose, plan.seeds) if choose else set(cells)


def _label(row: Row, is_chosen: bool) -> str:
    """Return a name that no other row of the group has."""
    setting = [f"{key.rpartition('.')[2]}={value}" for key, value in row.setting.items()]
    return row.method if is_chosen else " ".join([row.method, *setting])


def chosen_at(choose: Choose, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds that take part in the choice."""
    return seeds[:1] if choose.seeds == "first" else seeds


def choices(
    cells: Mapping[Cell, Sequence[Done]], choose: Choose, seeds: tuple[int, ...]
) -> set[Cell]:
    """Return of each method, task and backbone the setting that is best on validation.

    A setting that lacks a value at one of the seeds cannot be chosen; of equals, the first in the file is.
    """
    best: dict[tuple[str, ...], tuple[float, Cell]] = {}
    for cell, runs in cells.items():
        row = row_of(cell, [run for run in runs if run.planned.seed in chosen_at(choose, seeds)])
        values = row.validation.values
        if row.validation.mean is None or row.holes or None in values.values():
            continue
        value = row.validation.mean if row.higher_is_better else -row.validation.mean
        if cell[:3] not in best or value > best[cell[:3]][0]:
            best[cell[:3]] = (value, cell)
    return {cell for _, cell in best.values()}


def _without_choice(cells: Mapping[Cell, Sequence[Done]], chosen: set[Cell]) -> list[Row]:
    """Return a row, without a setting, for each method of which no setting could be chosen."""
    settled = {cell[:3] for cell in chosen}
    rows = []
    for key in dict.fromkeys(cell[:3] for cell in cells if cell[:3] not in settled):
        row = row_of(Cell(*key, ()), [])
        row.holes = {
            run.planned.seed: run.cause or "no value on validation at every seed"
            for cell, runs in cells.items()
            if cell[:3] == key
            for run in runs
        }
        rows.append(row)
    return rows


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows that are compared with each other: of one task and backbone."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.backbone), []).append(row)
    return list(groups.values())


def _split(folders: set[str], done: Sequence[Done]) -> str:
    """Return the split by which runs are ranked: validation where all that are finished have no test."""
    found = [run.result for run in done if run.folder.name in folders]
    scored = [result["metrics"] for result in found if result]
    return "validation" if scored and not any(m.get("test") for m in scored) else "test"


def _rank(rows: Sequence[Row], found: Sequence[Difference]) -> None:
    """Give each row with a value its place by the mean, and the ranks that the differences leave open."""
    known = [row for row in rows if row.score.mean is not None]
    labels = [row.label for row in known]
    own = (rows[0].task, rows[0].backbone)
    seen = [
        (one.better, one.second if one.better == one.first else one.first)
        for one in found
        if one.better is not None and (one.task, one.backbone) == own
    ]
    open_to = ranks.ranks(labels, seen)
    for row in known:
        sign = 1 if row.higher_is_better else -1
        better = [other for other in known if sign * (other.score.mean - row.score.mean) > SAME]  # type: ignore[operator]
        row.place = 1 + len(better)
        row.rank, row.rank_worst = open_to[row.label]


def _pair(rows: Sequence[Row], plan: Plan, cells: Mapping[Cell, Sequence[Done]]) -> None:
    """Note on each row in what it differs from the others beside its method; of equal time not in steps."""
    seeds, budget = plan.seeds, plan.study.budget
    by_time = budget is not None and budget.equal == "time"
    by = {key: name for key, name in PAIRED_BY.items() if not (by_time and key == "steps")}
    facts = {
        id(row): [_facts(run, result) for run in _runs(row, cells) if (result := run.result)]
        for row in rows
    }
    for row in rows:
        found = [seed for seed in seeds if row.score.values.get(seed) is not None]
        if len(found) < len(seeds):
            row.not_paired.append(f"{len(found)} of {len(seeds)} seeds")
    every = [fact for own in facts.values() for fact in own]
    for key, name in by.items():
        usual = {
            seed: Counter(fact[key] for fact in every if fact["seed"] == seed).most_common(1)[0][0]
            for seed in {fact["seed"] for fact in every}
        }
        for row in rows:
            unlike = [fact for fact in facts[id(row)] if fact[key] != usual[fact["seed"]]]
            if unlike:
                own, others = {fact[key] for fact in unlike}, {usual[f["seed"]] for f in unlike}
                said = f"{', '.join(sorted(own))}, others {', '.join(sorted(others))}"
                row.not_paired.append(f"{name}: {said}")


def _runs(row: Row, cells: Mapping[Cell, Sequence[Done]]) -> Sequence[Done]:
    cell = Cell(row.task, row.backbone, row.method, tuple(row.setting.items()))
    return cells.get(cell, ())


def _facts(run: Done, result: Result) -> dict[str, str]:
    environment = Run(run.folder).read_environment()
    return {
        "seed": str(run.planned.seed),
        "steps": str(result["steps"]),
        "batch_size": str(run.planned.file.training.batch_size),
        "fingerprint": str(environment["data"].get("fingerprint")),
    }


def _record(run: Done, reported: bool) -> dict[str, Any]:
    """Return one run as a flat record: the line of runs.csv."""
    cell, result = run.planned.cell, run.result
    record: dict[str, Any] = {
        "run": run.folder.name,
        "task": cell.task,
        "backbone": cell.backbone,
        "method": cell.method,
        **dict(cell.setting),
        "seed": run.planned.seed,
        "reported": reported,
        "finished": result is not None,
        "cause": None if result else run.cause or "not run",
        "skipped_steps": result and result.get("skipped_steps"),
        "not_exact": "; ".join(map(str, read_notes(result.get("not_exact", ()) if result else ())))
        or None,
        "warnings": "; ".join(map(str, read_notes(result.get("notes", ()) if result else ())))
        or None,
    }
    if result is None:
        return record
    for split, scores in result["metrics"].items():
        for name, score in scores.items():
            record[f"{split}/{name}"] = score["value"]
            if "standard_error" in score:
                record[f"{split}/{name}/standard_error"] = score["standard_error"]
    return record | {
        "trainable": result["parameters"]["trainable"],
        "steps": result["steps"],
        "selected_step": result["selected_step"],
        "training_seconds": result["seconds"]["training"],
        "peak_memory_bytes": result["peak_memory_bytes"],
        **{f"last/{name}": value for name, value in last_scores(result).items()},
        **result.get("costs", {}),
        **{f"facts/{name}": value for name, value in result.get("facts", {}).items()},
    }
