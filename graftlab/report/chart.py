"""Charts as SVG that needs no script, with the colours of its page; points say their numbers."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360.0, 220.0
"""In units of the drawing: a phone shows them as pixels, and letters of 10 can be read."""
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 10.0, 36.0
COLOURS = 10
"""The page's style has so many, `s0` to `s9`; then they begin again, dashed."""
MOST_POINTS = 200  # of a line: a point for less than two pixels shows nothing more
MOST_TIPS = 24  # points of a line that say their numbers
TICKS = 5
WHOLE = 10_000_000  # whole numbers below it have all their digits
SPREAD = 10.0  # of the ends of a logarithmic axis that has powers of ten


class Axis(NamedTuple):
    """What an axis shows."""

    label: str
    log: bool = False
    whole: bool = False
    """It counts: nothing stands between two whole numbers."""


class Series(NamedTuple):
    """One line, or points that are not joined."""

    name: str
    points: Sequence[tuple[float, float | None]]
    """(x, y); a y that is None or not finite is a gap."""
    band: Sequence[tuple[float, float, float]] = ()
    """(x, lowest, highest)."""
    joined: bool = True
    tips: Sequence[str] = ()
    """What each point says; its numbers unless given."""
    colour: int | None = None
    """Which of the page's colours; that of its place among the series unless given."""
    ringed: frozenset[int] = frozenset()
    """Points that are marked: the chosen ones."""


class _Scale(NamedTuple):
    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where a value lies in the drawing."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 2)


def chart(series: Sequence[Series], x: Axis, y: Axis, title: str) -> Markup:
    """Return a figure of the series with its legend; a sentence where there is nothing to draw.

    On a logarithmic axis values that are not positive are left out.
    """
    known = [_known(one, x, y) for one in series]
    at = [point for one in known for point in _extent(one)]
    if not at:
        return Markup('<p class="note">{}: nothing was recorded.</p>').format(title)
    across = _scale([p[0] for p in at], x.log, LEFT, WIDTH - RIGHT)
    up = _scale([p[1] for p in at], y.log, HEIGHT - BOTTOM, TOP)
    drawn = Markup("").join(
        [*_frame(across, up, x, y), *itertools.chain(*(_drawn(one, n, across, up)
                                                       for n, one in enumerate(known)))]
    )  # fmt: skip
    svg = Markup(
        '<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, title, drawn)
    return Markup('<figure class="plot"><figcaption>{}</figcaption>{}{}</figure>').format(
        title, svg, _legend(known)
    )


def number(value: float) -> str:
    """Return a value as charts and their tips say it."""
    if float(value).is_integer() and abs(value) < WHOLE:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _known(one: Series, x: Axis, y: Axis) -> Series:
    """Return a series without what cannot be drawn, and of a long line every so many-th point."""

    def fits(value: float, axis: Axis) -> bool:
        return math.isfinite(value) and (value > 0 or not axis.log)

    kept = [n for n, (at, _) in enumerate(one.points) if fits(at, x)]
    every = -(-len(kept) // MOST_POINTS)
    if every > 1:
        kept = sorted({*kept[::every], kept[-1]})
    points = [
        (at, None if value is None or not fits(value, y) else value)
        for at, value in (one.points[n] for n in kept)
    ]
    band = [part for part in one.band if fits(part[0], x) and fits(part[1], y) and fits(part[2], y)]
    step = max(1, -(-len(band) // MOST_POINTS))
    tips = [one.tips[n] for n in kept] if one.tips else []
    ringed = frozenset(place for place, n in enumerate(kept) if n in one.ringed)
    return one._replace(points=points, band=band[::step], tips=tips, ringed=ringed)


def _extent(one: Series) -> Iterator[tuple[float, float]]:
    yield from ((at, value) for at, value in one.points if value is not None)
    for at, low, high in one.band:
        yield from ((at, low), (at, high))


def _scale(values: Sequence[float], log: bool, start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    if log:
        margin = max((high / low) ** 0.05, 1.05)
        low, high = low / margin, high * margin
    else:
        margin = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
        low, high = low - margin, high + margin
    return _Scale(low, high, log, start, end)


def ticks(low: float, high: float, log: bool = False, whole: bool = False) -> list[float]:
    """Return round values from the lowest to the highest, some five; of less than a decade as on an axis that
    is not logarithmic."""
    if log and high >= SPREAD * low:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1, 2, 5), (1, 3)):
            within = [v for d in decades for m in digits if low <= (v := m * 10.0**d) <= high]
            if len(within) <= TICKS:
                return within
        tens = [10.0**d for d in decades if low <= 10.0**d <= high]
        return tens[:: -(-len(tens) // TICKS)]
    rough = max((high - low) / TICKS, 1.0 if whole else 0.0)
    step = 10 ** math.floor(math.log10(rough))
    step = next(step * m for m in (1, 2, 5, 10) if step * m >= rough)
    first = math.ceil(low / step)
    return [round(n * step, 12) for n in range(first, math.floor(high / step) + 1)]


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis) -> Iterator[Markup]:
    """Yield the grid, what its lines stand for, and what the axes show."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in ticks(up.low, up.high, y.log):
        yield Markup(
            '<path class="grid" d="M{0} {1}H{2}"/><text x="{3}" y="{4}" text-anchor="end">{5}</text>'
        ).format(LEFT, up(value), right, LEFT - 4, up(value) + 3, number(value))
    for value in ticks(across.low, across.high, x.log, x.whole):
        yield Markup(
            '<path class="grid" d="M{0} {1}V{2}"/><text x="{0}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(across(value), TOP, bottom, bottom + 13, number(value))
    yield Markup('<text x="{}" y="{}" text-anchor="end" class="axis">{}</text>').format(
        right, HEIGHT - 6, x.label
    )
    yield Markup('<text x="{}" y="{}" class="axis">{}</text>').format(4, HEIGHT - 6, f"↑ {y.label}")


def _drawn(one: Series, place: int, across: _Scale, up: _Scale) -> Iterator[Markup]:
    colour = place if one.colour is None else one.colour
    name = f"s{colour % COLOURS}" + (" dashed" if colour // COLOURS % 2 else "")
    if len(one.band) > 1:
        above = [(across(at), up(high)) for at, _, high in one.band]
        below = [(across(at), up(low)) for at, low, _ in reversed(one.band)]
        yield Markup('<path class="band {}" d="{}Z"/>').format(name, _way([*above, *below]))
    if one.joined:
        pieces = itertools.groupby(one.points, key=lambda point: point[1] is not None)
        lines = [
            [(across(at), up(v)) for at, v in part if v is not None]
            for known, part in pieces
            if known
        ]
        way = "".join(_way(line) for line in lines if len(line) > 1)
        if way:
            yield Markup('<path class="line {}" d="{}"/>').format(name, way)
    every = max(1, -(-len(one.points) // MOST_TIPS)) if one.joined else 1
    alone = len(one.points) == 1 or not one.joined
    for n, (at, value) in enumerate(one.points):
        ringed = n in one.ringed
        if value is None or (n % every and not ringed and n != len(one.points) - 1):
            continue
        said = one.tips[n] if one.tips else f"{one.name}: {number(value)} at {number(at)}"
        size = "dot" if alone or ringed else "dot small"
        yield Markup(
            '<circle class="{} {}{}" cx="{}" cy="{}" r="{}" data-tip="{}"><title>{}</title></circle>'
        ).format(size, name, " ringed" if ringed else "", across(at), up(value),
                 5 if ringed else 3.5 if alone else 2.2, said, said)  # fmt: skip


def _way(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _legend(series: Sequence[Series]) -> Markup:
    """Return the names of the series beside their colours; of one without a name nothing."""
    known = [
        (n if one.colour is None else one.colour, one.name)
        for n, one in enumerate(series)
        if one.name
    ]
    entries = {name: colour for colour, name in reversed(known)}
    if len(entries) < 2:
        return Markup("")
    items = (
        Markup(
            '<li><svg viewBox="0 0 16 8"><path class="line s{}{}" d="M0 4H16"/></svg>{}</li>'
        ).format(colour % COLOURS, " dashed" if colour // COLOURS % 2 else "", escape(name))
        for name, colour in reversed(entries.items())
    )
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))
