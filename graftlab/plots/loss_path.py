"""Losses at W0 + scale * change: 0 is before training, 1 what it has come to; dotted a random change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

# Shapes: S scales.

DRAWS_FROM = "path"
TITLE = "Loss along the change"
PANELS = {"task_loss": "task", "text_loss": "general text (nats a token)"}


class Place(Protocol):
    """A line of `path`; its losses are read by their names."""

    @property
    def model(self) -> str: ...
    @property
    def scale(self) -> float | None: ...


class Line(NamedTuple):
    """A loss of the runs of one name; NaN where there is none."""

    scales: "Floats"  # (S,)
    mean: "Floats"  # (S,)
    deviation: "Floats"  # (S,)
    null: "Floats"  # (S,) mean along a random change


class Paths(NamedTuple):
    """What is drawn: by panel, then by model."""

    panels: dict[str, dict[str, Line]]


def data(rows: Sequence[Place]) -> Paths:
    """Return each loss over the scales of each model."""
    by_model: dict[str, dict[float, list[Place]]] = {}
    for row in rows:
        if row.scale is not None:
            by_model.setdefault(row.model, {}).setdefault(row.scale, []).append(row)
    return Paths({
        panel: {model: _line(places, panel) for model, places in by_model.items()}
        for panel in PANELS
    })  # fmt: skip


def _line(places: dict[float, list[Place]], panel: str) -> Line:
    scales = sorted(places)
    values = [_models.column(places[scale], panel) for scale in scales]
    nulls = [_models.column(places[scale], f"null_{panel}") for scale in scales]
    return Line(
        np.array(scales),
        np.array([v.mean() if len(v) else np.nan for v in values]),
        np.array([v.std() if len(v) else np.nan for v in values]),
        np.array([v.mean() if len(v) else np.nan for v in nulls]),
    )


def draw(paths: Paths) -> "Figure":
    """Return a panel a loss, a colour a model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (panel, lines) in zip(panels, paths.panels.items(), strict=True):
        axes.set_title(PANELS[panel], fontsize=10)
        shown = {model: line for model, line in lines.items() if np.isfinite(line.mean).any()}
        if not shown:
            _models.empty(axes)
            continue
        chosen = _models.colours(list(lines))
        for place, (model, line) in enumerate(shown.items()):
            colour, marker = chosen[model], _models.MARKERS[place % len(_models.MARKERS)]
            axes.plot(
                line.scales, line.mean, color=colour, marker=marker, markersize=4, label=model
            )
            low, high = line.mean - line.deviation, line.mean + line.deviation
            axes.fill_between(line.scales, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(line.scales, line.null, color=colour, linestyle=":")
        axes.set_xlabel("scale of the change")
        axes.set_ylabel("mean loss")
        _models.plain(axes)
    _models.legend(figure, panels[0] if panels[0].lines else panels[1])
    return figure
