"""The charts of a study: learning curves with bands, scores against what they cost, and how it was tuned."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from graftlab.contracts import Compared
from graftlab.report.chart import COLOURS, Axis, Series, chart, number
from graftlab.report.study_tables import Group
from graftlab.study.findings import Point, Tuning
from graftlab.study.records import Row

if TYPE_CHECKING:
    from graftlab.plots.learning_curves import Line

MOST_LINES = 30  # methods: more are a smear
COSTS: Mapping[str, Callable[[Row], float | None]] = {
    "trained parameters": lambda row: row.trainable,
    "seconds of training": lambda row: row.seconds,
    "bytes of the adapter": lambda row: row.adapter_bytes,
    "floating-point operations of training": lambda row: row.training_flops,
    "seconds for 1,000 answers": lambda row: row.inference_seconds,
}
"""What a score is bought with; on a logarithmic axis."""


def curves(group: Group, folders: Mapping[str, Sequence[Path]]) -> list[Markup]:
    """Return the training loss and the validation metric over the steps, means of the seeds with bands.

    A band is the mean ± the standard deviation over the seeds. `folders` are the runs of each row.
    """
    from graftlab.plots import learning_curves

    metric = group.metric if group.metric != "metric" else "loss"
    found = learning_curves.data(Compared(metric, folders, ()))
    steps = Axis("optimizer steps", whole=True)
    return [
        chart(_means(found.loss), steps, Axis("loss"), "Training loss"),
        chart(_means(found.validation), steps, Axis(metric), f"{metric} on validation"),
    ]


def _means(methods: "Mapping[str, Sequence[Line]]") -> list[Series]:
    from graftlab.plots import learning_curves

    found = []
    for name, lines in list(methods.items())[:MOST_LINES]:
        if not lines:
            continue
        mean = learning_curves.mean(lines)
        points = list(zip(mean.steps.tolist(), _finite(mean.values), strict=True))
        band: list[tuple[float, float, float]] = []
        if len(lines) > 1:
            rows = [line.values[np.isin(line.steps, mean.steps)] for line in lines]
            spread = np.std(rows, axis=0, ddof=1)
            ends = zip(mean.steps.tolist(), mean.values - spread, mean.values + spread, strict=True)
            band = [(float(at), float(low), float(high)) for at, low, high in ends]
        found.append(Series(name, points, band))
    return found


def _finite(values: Iterable[float]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def costs(group: Group) -> list[Markup]:
    """Return the score over each cost that is known of two rows or more, with the front of both."""
    drawn = []
    for label, cost in COSTS.items():
        known = [
            (row, float(at)) for row in group if (at := cost(row)) and row.score.mean is not None
        ]
        if len(known) > 1:
            title = f"{group.metric} and {label}"
            drawn.append(
                chart(_against(known, group), Axis(label, log=True), Axis(group.metric), title)
            )
    kept = [
        (row, one.mean) for row in group if (one := row.forgetting) and row.score.mean is not None
    ]
    if len(kept) > 1 and (one := kept[0][0].forgetting):
        label = f"forgetting: {one.measure} on {one.on}"
        title = f"{group.metric} and what is forgotten"
        drawn.append(chart(_against(kept, group), Axis(label), Axis(group.metric), title))
    return drawn


def _against(known: Sequence[tuple[Row, float]], group: Group) -> list[Series]:
    """Return a point for each row, and the front that none of the others beats in both."""
    places = {row.label: place for place, row in enumerate(group)}
    higher = group[0].higher_is_better
    points = [(at, row.score.mean or 0.0) for row, at in known]
    best = front(points, higher)
    series = [
        Series("no other is better and costs less", best, colour=7, tips=[""] * len(best))
    ] if len(best) > 1 else []  # fmt: skip
    for row, at in known:
        mean = row.score.mean or 0.0
        tip = f"{row.label}: {group.metric} {number(mean)} at {at:,.4g}"
        series.append(
            Series(
                row.label,
                [(at, mean)],
                joined=False,
                tips=[tip],
                colour=places[row.label] % COLOURS,
            )
        )
    return series


def front(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """Return the (cost, score) that no other point beats in one and equals in the other, by their cost."""
    sign = 1 if higher else -1
    kept: list[tuple[float, float]] = []
    for at, score in sorted(set(points), key=lambda point: (point[0], -sign * point[1])):
        if not kept or sign * score > sign * kept[-1][1]:
            kept.append((at, score))
    return kept


def tuning(tunings: Sequence[Tuning], group: Group) -> list[Markup]:
    """Return validation over every number that was varied, what was chosen ringed; then what tuning buys."""
    drawn = []
    places = {row.method: place for place, row in reversed([*enumerate(group)])}
    metric = next((own.metric for own in tunings if own.metric), "metric")
    for key in dict.fromkeys(key for own in tunings for p in own.points for key in p.setting):
        lines = [
            _best_at(own, key)._replace(colour=places.get(own.method))
            for own in tunings[:MOST_LINES]
        ]
        values = [at for one in lines for at, _ in one.points]
        if len(set(values)) < 2:
            continue
        log = min(values) > 0 and max(values) >= 10 * min(values)
        title = f"{metric} on validation over {key}"
        drawn.append(chart(lines, Axis(key, log), Axis(metric), title))
    bought = [
        Series(
            own.method, [(float(n), value) for n, value in enumerate(own.expected_best, start=1)]
        )
        for own in tunings[:MOST_LINES]
        if len(own.expected_best) > 1
    ]
    if bought:
        title = f"Expected best {metric} on validation of so many settings"
        drawn.append(chart(bought, Axis("settings tried", whole=True), Axis(metric), title))
    return drawn


def _best_at(own: Tuning, key: str) -> Series:
    """Return a method's best value at each value of a key, over the settings of the others."""
    best: dict[float, Point] = {}
    for point in own.points:
        at = _number(point.setting.get(key))
        if at is None or point.value is None:
            continue
        known = best.get(at)
        better = known is None or known.value is None or (
            (point.value > known.value) == own.higher_is_better and point.value != known.value
        )  # fmt: skip
        if better or point.chosen:
            best[at] = point
    places = sorted(best)
    chosen = frozenset(n for n, at in enumerate(places) if best[at].chosen)
    edge = f", at the {own.edges[key]} that was tried" if key in own.edges else ""
    tips = [
        f"{own.method}: {number(best[at].value or 0.0)} at {number(at)}"
        + (f", chosen{edge}" if best[at].chosen else "")
        for at in places
    ]
    return Series(own.method, [(at, best[at].value) for at in places], tips=tips, ringed=chosen)


def _number(shown: str | None) -> float | None:
    try:
        return float(shown) if shown is not None else None
    except ValueError:
        return None
