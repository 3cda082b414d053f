"""Curves of what runs have logged so far: losses, scores on validation, learning rate, gradient norm."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from graftlab.browser.folder import Line
from graftlab.report.chart import Axis, Series, chart

APART = ("step", "learning_rate", "gradient_norm")
LOSSES = ("loss", "validation/loss")
STEPS = Axis("steps", whole=True)
MOST_CHARTS = 12  # beside the loss; a mixture has a metric for each of its tasks


def charts(runs: Mapping[str, Sequence[Line]]) -> list[Markup]:
    """Return the charts of one run, or of several in the same axes."""
    known = dict.fromkeys(
        key for lines in runs.values() for line in lines for key in line if _is_curve(key)
    )
    scores = [key for key in known if key.startswith("validation/") and key not in LOSSES]
    rest = [key for key in known if key not in scores and key not in LOSSES and key not in APART]
    drawn = [chart(_series(runs, LOSSES), STEPS, Axis("loss"), "Loss")]
    for key in [*scores, *rest, *APART[1:]][:MOST_CHARTS]:
        if key in known:
            name = key.removeprefix("validation/").replace("_", " ")
            title = f"{name} on validation" if key in scores else name.capitalize()
            drawn.append(chart(_series(runs, (key,)), STEPS, Axis(name), title))
    return drawn


def _is_curve(key: str) -> bool:
    return key != "step" and not key.endswith("_size")


def _series(runs: Mapping[str, Sequence[Line]], keys: Sequence[str]) -> list[Series]:
    """Return a line for each run and figure; a gap is a value that was not finite."""
    found = []
    for name, lines in runs.items():
        for key in keys:
            points = [
                (_number(line["step"]) or 0.0, _number(line[key])) for line in lines if key in line
            ]
            said = " ".join(filter(None, (name, key if len(keys) > 1 else "")))
            if points:
                found.append(Series(said or key, points))
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
