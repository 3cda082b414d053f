"""How each method was tuned: settings that were tried, the chosen one, whether the best may lie beyond."""

from collections.abc import Mapping, Sequence

from graftlab.statistics.budget import expected_best
from graftlab.study.findings import Point, Tuning
from graftlab.study.records import Row


def of_grid(grid: Sequence[Row]) -> tuple[Tuning, ...]:
    """Return the tuning of each method, task and backbone, of the rows that were chosen from."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in grid:
        groups.setdefault((row.task, row.backbone, row.method), []).append(row)
    return tuple(_tuning(rows) for rows in groups.values())


def _tuning(rows: Sequence[Row]) -> Tuning:
    known = next((row for row in rows if row.metric), rows[0])
    points = tuple(
        Point(row.setting, row.validation.mean, row.validation.deviation, row.chosen)
        for row in rows
    )
    chosen = next((row.setting for row in rows if row.chosen), {})
    return Tuning(
        task=known.task,
        backbone=known.backbone,
        method=known.method,
        metric=known.metric,
        higher_is_better=known.higher_is_better,
        points=points,
        edges=edges(chosen, [row.setting for row in rows]),
        expected_best=expected_best([point.value for point in points], known.higher_is_better),
    )


def edges(chosen: Mapping[str, str], tried: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return which keys of a setting stand at an end of the numbers that were tried: `smallest`, `largest`.

    Where one value was tried, or values are no numbers, there is no end.
    """
    found = {}
    for key, value in chosen.items():
        numbers = {number(setting[key]) for setting in tried if key in setting}
        known = sorted(one for one in numbers if one is not None)
        own = number(value)
        if own is not None and len(known) == len(numbers) > 1 and own in (known[0], known[-1]):
            found[key] = "smallest" if own == known[0] else "largest"
    return found


def number(shown: str) -> float | None:
    """Return a shown value as a number; None where it is none."""
    try:
        return float(shown)
    except ValueError:
        return None
