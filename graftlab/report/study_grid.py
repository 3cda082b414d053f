"""The table of what was tried for each method of a study, with what was chosen and what is at an edge."""

from collections.abc import Mapping, Sequence

from graftlab.report.tables import NOTHING, Cell, Table
from graftlab.study.findings import Tuning

MOST_SETTINGS = 12  # columns of a grid of methods that do not share them: else it is a list


def grid(tunings: Sequence[Tuning], name: str) -> Table:
    """Return every setting that was tried, the chosen one marked and flagged where it stands at an edge.

    Settings are columns where methods share them, else lines, the best of each method first.
    """
    settings = list(dict.fromkeys(_words(point.setting) for own in tunings for point in own.points))
    if len(settings) > max(len(own.points) for own in tunings) and len(settings) > MOST_SETTINGS:
        return _listed(tunings, name)
    rows = []
    for tuning in tunings:
        found = {_words(point.setting): point for point in tuning.points}
        cells = [Cell(tuning.method)]
        for words in settings:
            point = found.get(words)
            if point is None or point.value is None:
                cells.append(Cell(NOTHING))
                continue
            edge = tuning.edges if point.chosen else {}
            spread = "" if point.deviation is None else f" ± {point.deviation:.4f}"
            mark = ("chosen edge" if edge else "chosen") if point.chosen else ""
            tip = "; ".join(f"{key} is the {which} that was tried" for key, which in edge.items())
            text = f"{point.value:.4f}{spread}{' ✓' if point.chosen else ''}"
            cells.append(
                Cell(text, point.value, {"standard deviation": point.deviation}, mark, tip=tip)
            )
        rows.append(tuple(cells))
    title = (
        "Validation of every setting that was tried, ± the standard deviation over the seeds that choose; "
        "✓ was chosen, ⚠ stands at an edge."
    )
    return Table(
        name, title, ("method", *settings), tuple(rows), frozenset(settings), sortable=False
    )


def _listed(tunings: Sequence[Tuning], name: str) -> Table:
    rows = []
    for own in tunings:
        sign = -1 if own.higher_is_better else 1
        for point in sorted(own.points, key=lambda p: (p.value is None, sign * (p.value or 0.0))):
            edges = own.edges if point.chosen else {}
            tip = "; ".join(
                f"{key} is near the {end} that was allowed" for key, end in edges.items()
            )
            mark = ("chosen edge" if edges else "chosen") if point.chosen else ""
            text = NOTHING if point.value is None else f"{point.value:.4f}{' ✓' * point.chosen}"
            score = Cell(text, point.value, mark=mark, tip=tip)
            rows.append((Cell(own.method), Cell(_words(point.setting)), score))
    title = (
        "Validation of every trial, the best of each method first; ✓ was chosen, ⚠ stands at an edge, and "
        "what ended before its time has none."
    )
    return Table(
        name, title, ("method", "setting", "validation"), tuple(rows), frozenset({"validation"})
    )


def _words(setting: Mapping[str, str]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in setting.items())
