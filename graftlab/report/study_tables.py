"""The tables of a study: what ranks where and how sure that is, by task, pair by pair; its tuning."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from graftlab.report import study_costs
from graftlab.report.chart import COLOURS
from graftlab.report.tables import NOTHING, Cell, Table, cell, headed
from graftlab.study.findings import Difference
from graftlab.study.records import Comparison, Row, Summary

MOST_ROWS = 40  # of a matrix: with more it is a list, in differences.csv
PLOT = 160.0  # units of a drawing beside a row
OF_A_GROUP = ("task", "backbone", "metric", "split", "score")
"""Columns of the rankings of all groups as one table."""


class Group(tuple[Row, ...]):
    """The rows of one task and backbone, the best mean first."""

    @property
    def title(self) -> str:
        return f"{self[0].task}, {self[0].backbone}"

    @property
    def metric(self) -> str:
        return next((row.metric for row in self if row.metric), "metric")

    @property
    def split(self) -> str:
        return self[0].ranked_by


def groups(comparison: Comparison) -> list[Group]:
    """Return the rows that are compared with each other."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in comparison.rows:
        found.setdefault((row.task, row.backbone), []).append(row)
    return [
        Group(sorted(rows, key=lambda row: (row.place is None, row.place or 0)))
        for rows in found.values()
    ]


def own(group: Group, found: Iterable[Difference]) -> list[Difference]:
    """Return the differences of a group's pairs."""
    return [one for one in found if (one.task, one.backbone) == (group[0].task, group[0].backbone)]


def ranking(comparison: Comparison, group: Group, name: str) -> Table:
    """Return a group's ranking: score, its way from the best row with its interval, and what it costs."""
    best, pairs = group[0].label, own(group, comparison.differences)
    ends = [end for one in pairs for end in (one.low, one.high) if end is not None]
    scale = _scale([*ends, 0.0])
    span = _scale([v for row in group for v in row.score.values.values() if v is not None])
    front = {
        "rank": [_rank(row) for row in group],
        "method": [Cell(row.method, tip="; ".join(row.not_paired)) for row in group],
    }
    back = {
        f"{group.split} {group.metric}": [_score(row.score) for row in group],
        "seeds": [_seeds(row.score, place, span) for place, row in enumerate(group)],
        "less the best": [_against(row, best, pairs, scale) for row in group],
        **study_costs.columns(group),
        "last step": [Cell() if row.last is None else _score(row.last) for row in group],
        "holds": [Cell("; ".join(_reservations(row)), mark="warn") for row in group],
    }
    varied = [key for row in comparison.rows for key in row.setting]
    names = headed(varied, {*front, *back, *OF_A_GROUP})
    tried = {names[key]: [Cell(row.setting.get(key, "")) for row in group] for key in names}
    columns = {**front, **tried, **back}
    kept = {key: cells for key, cells in columns.items() if any(one.text for one in cells)}
    text = {"method", "holds", *tried}
    return Table(
        name,
        f"{group.title}: {group.split} {group.metric}, mean over the seeds ± their standard deviation, "
        f"and the difference from {best} with its 95 % interval. Of a rank a-b, a - 1 rows are seen to be "
        f"better, and those up to b cannot be told apart.",
        tuple(kept),
        tuple(zip(*kept.values(), strict=True)),
        frozenset(kept) - text,
    )


def _rank(row: Row) -> Cell:
    """Return between which ranks a row stands."""
    if row.rank is None:
        return Cell(NOTHING)
    worst = row.rank_worst or row.rank
    text = f"{row.rank}" if worst == row.rank else f"{row.rank}-{worst}"
    return Cell(text, float(row.place or row.rank), {"best": row.rank, "worst": worst})


def _score(found: Summary) -> Cell:
    """Return mean ± standard deviation."""
    if found.mean is None:
        return Cell(NOTHING)
    spread = "" if found.deviation is None else f" ± {found.deviation:.4f}"
    more = {"standard deviation": found.deviation, "standard error of a run": found.standard_error}
    return Cell(f"{found.mean:.4f}{spread}", found.mean, more)


def _seeds(found: Summary, place: int, scale: tuple[float, float]) -> Cell:
    """Return the seeds as points, their mean as a bar."""
    known = [value for value in found.values.values() if value is not None]
    if not known:
        return Cell()
    points = Markup("").join(
        Markup('<circle class="dot s{}" cx="{}" cy="9" r="3.5"/>').format(
            place % COLOURS, _at(value, scale)
        )
        for value in known
    )
    middle = _at(found.mean if found.mean is not None else known[0], scale)
    drawn = Markup(
        '<svg class="points" viewBox="0 0 {:g} 18" aria-hidden="true"><path class="grid" d="M0 9H{:g}"/>{}'
        '<path class="mean" d="M{} 1V17"/></svg>'
    ).format(PLOT, PLOT, points, middle)
    collapsed = f", {len(found.collapsed)} collapsed" if found.collapsed else ""
    return Cell(f"{len(known)}{collapsed}", float(len(known)), drawing=drawn)


def _against(row: Row, best: str, pairs: Sequence[Difference], scale: tuple[float, float]) -> Cell:
    """Return a row's score less that of the best mean, with its interval."""
    one = _pair(row.label, best, pairs)
    if one is None or one.difference is None:
        return Cell()
    if one.low is None or one.high is None:
        return Cell(f"{one.difference:+.4f}", one.difference, tip=one.reason or "")
    worse = one.better == best
    drawn = Markup(
        '<svg class="points" viewBox="0 0 {:g} 18" aria-hidden="true"><path class="zero" d="M{} 0V18"/>'
        '<path class="span s{}" d="M{} 9H{}"/><circle class="dot s{}" cx="{}" cy="9" r="3.5"/></svg>'
    ).format(
        PLOT, _at(0.0, scale), 3 if worse else 7, _at(one.low, scale), _at(one.high, scale),
        3 if worse else 7, _at(one.difference, scale),
    )  # fmt: skip
    more = {"low": one.low, "high": one.high, "p": one.p, "p (Holm)": one.p_holm}
    text = f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
    return Cell(text, one.difference, more, "", drawn, said(one))


def said(one: Difference) -> str:
    """Return a difference in a sentence."""
    if one.difference is None:
        return f"{one.first} and {one.second}: {one.reason or 'no score'}"
    text = f"{one.first} less {one.second}: {one.difference:+.4f}"
    if one.low is not None and one.high is not None:
        text += f", {one.level:.0%} interval {one.low:+.4f} to {one.high:+.4f}"
    if one.p is not None:
        text += f", p {one.p:.3g}"
    if one.p_holm is not None:
        text += f", corrected for {one.pairs} pairs {one.p_holm:.3g}"
    if one.procedure:
        text += f" ({one.procedure}; {one.seeds} seeds)"
    return text + (f". {one.reason}" if one.reason else "")


def _pair(first: str, second: str, pairs: Sequence[Difference]) -> Difference | None:
    """Return the difference of two rows, first less second."""
    from graftlab.study.difference_table import turned

    for one in pairs:
        if (one.first, one.second) == (first, second):
            return one
        if (one.first, one.second) == (second, first):
            return turned(one)
    return None


def _reservations(row: Row) -> list[str]:
    """Return why a row is to be read with care."""
    found = [f"not paired: {reason}" for reason in row.not_paired]
    return found + [f"seed {seed} is missing: {cause}" for seed, cause in row.holes.items()]


def by_task(comparison: Comparison) -> Table | None:
    """Return every method and setting over all tasks and backbones; None where there is one of them."""
    every = groups(comparison)
    if len(every) < 2:
        return None
    labels = list(dict.fromkeys(row.label for group in every for row in group))
    found: Mapping[tuple[str, str], Row] = {
        (group.title, row.label): row for group in every for row in group
    }
    rows = []
    for label in labels:
        known = [found.get((group.title, label)) for group in every]
        places = [float(row.place) for row in known if row and row.place]
        cells = [Cell(NOTHING) if row is None else _score(row.score) for row in known]
        mean = cell(sum(places) / len(places), 2) if len(places) == len(every) else Cell(NOTHING)
        rows.append((Cell(label), *cells, mean))
    return Table(
        "tasks",
        "Every task and backbone: mean over the seeds ± their standard deviation, and the mean of the places",
        ("method", *(f"{group.title} ({group.metric})" for group in every), "mean place"),
        tuple(sorted(rows, key=lambda row: (row[-1].value is None, row[-1].value or 0.0))),
        frozenset(["mean place", *(f"{group.title} ({group.metric})" for group in every)]),
    )


def matrix(comparison: Comparison, group: Group, name: str) -> Table | None:
    """Return every pair of a group: row less column; None of one row, or of too many."""
    pairs = own(group, comparison.differences)
    if not 2 <= len(group) <= MOST_ROWS or not pairs:
        return None
    rows = [
        (Cell(row.label), *(_cell(row, other, pairs) for other in group)) for row in group
    ]  # fmt: skip
    title = (
        "Every pair: the row less the column. Marked is what is seen to be better or worse at 5 %, "
        "corrected for all pairs."
    )
    names = tuple(row.label for row in group)
    return Table(name, title, ("", *names), tuple(rows), frozenset(names), sortable=False)


def _cell(row: Row, other: Row, pairs: Sequence[Difference]) -> Cell:
    one = None if row is other else _pair(row.label, other.label, pairs)
    if one is None or one.difference is None:
        return Cell("" if row is other else NOTHING)
    mark = "" if one.better is None else "better" if one.better == row.label else "worse"
    sign = {"better": " >", "worse": " <"}.get(mark, "")
    return Cell(
        f"{one.difference:+.4f}{sign}",
        one.difference,
        {"p (Holm)": one.p_holm},
        mark,
        tip=said(one),
    )


def _scale(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)


def _at(value: float, scale: tuple[float, float]) -> float:
    """Return where a value lies in a drawing."""
    low, high = scale
    share = (value - low) / (high - low) if high > low else 0.5
    return round(5 + share * (PLOT - 10), 2)
