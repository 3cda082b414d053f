"""A model's scores beside those that it reaches when it is asked otherwise, on the same examples."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from graftlab.contracts import Controls, Prediction
from graftlab.contracts.plot import ControlRow
from graftlab.runfile.measures import measure
from graftlab.runs import evaluation
from graftlab.statistics import clustered
from graftlab.statistics.clustered import Totals

# Shapes: N examples.

ALL = "all"
"""The examples of all task types."""
LOSS = "loss"
INTERVAL = "95 % interval over examples: paired, clustered by source text, t"
"""What the interval is, for whoever reads it."""
NO_MEAN = "no interval: the score is no mean over examples"


class Way(NamedTuple):
    """What is known of a model that is asked in one way."""

    predictions: Sequence[Prediction]
    totals: Mapping[str, Totals | None]
    """By metric; None where its score is not made of values of single examples."""


class Part(NamedTuple):
    """Examples of one task type, or all."""

    kind: str
    places: Sequence[int]
    sources: Sequence[str]


class Figure(NamedTuple):
    """A score, and what it differs by from that of the first way."""

    value: float | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    reason: str | None = None


def rows(
    predictions: Mapping[str, Sequence[Prediction]],
    controls: Controls,
    metrics: Sequence[str],
    inputs: evaluation.Inputs,
) -> list[ControlRow]:
    """Return each score of each way to be asked: of all examples, then of each task type.

    `predictions` are by control, the first as the model was trained to be asked; of a control that cannot be
    there are none. `inputs` are those of the first.

    Raises:
        ConfigError, DataError, ModelError: as the metrics.
    """
    names = (LOSS, *metrics)
    ways = {
        control: Way(found, {name: _totals(found, name, inputs) for name in names})
        for control, found in predictions.items()
    }
    return [row for part in _parts(controls) for row in _rows(part, ways, controls, inputs)]


def _parts(controls: Controls) -> Iterator[Part]:
    for kind in (ALL, *dict.fromkeys(controls.kinds)):
        places = [place for place, one in enumerate(controls.kinds) if kind in (ALL, one)]
        yield Part(kind, places, [controls.sources[place] for place in places])


def _rows(
    part: Part, ways: Mapping[str, Way], controls: Controls, inputs: evaluation.Inputs
) -> Iterator[ControlRow]:
    first = ways[next(iter(controls.tasks))]
    for name in first.totals:
        for control, task in controls.tasks.items():
            if isinstance(task, str):
                found = Figure(None, reason=task)
            else:
                found = _figure(part, name, ways[control], inputs)
                if ways[control] is not first:
                    found = _beside(
                        _figure(part, name, first, inputs),
                        found,
                        part,
                        name,
                        (first, ways[control]),
                    )
            low, high = found.interval or (None, None)
            yield {
                "task_type": part.kind,
                "examples": len(part.places),
                "sources": len({*part.sources}),
                "control": control,
                "metric": name,
                "value": found.value,
                "difference": found.difference,
                "low": low,
                "high": high,
                "reason": found.reason,
            }


def _figure(part: Part, name: str, way: Way, inputs: evaluation.Inputs) -> Figure:
    """Return a score of a part of the examples."""
    totals = way.totals[name]
    if totals is None:
        score = evaluation.score([way.predictions[place] for place in part.places], [name], inputs)[
            name
        ]
        return Figure(score.value, reason=score.reason if score.value is None else NO_MEAN)
    own = _of(totals, part)
    if _is_median(name):
        known = own.sums[own.weights > 0].tolist()
        return Figure(statistics.median(known) if known else None, reason=NO_MEAN)
    return Figure(own.mean, reason=None if own.mean is not None else "no example has a value")


def _beside(first: Figure, found: Figure, part: Part, name: str, ways: tuple[Way, Way]) -> Figure:
    """Return a score with its difference from the first way's."""
    if first.value is None or found.value is None:
        return found
    one, other = (way.totals[name] for way in ways)
    difference = found.value - first.value
    if one is None or other is None or _is_median(name):
        return found._replace(difference=difference)
    apart = clustered.difference(_of(other, part), _of(one, part), part.sources)
    assert apart is not None
    reason = None if apart.interval else "no interval: all sources differ alike, or there is one"
    return Figure(found.value, difference, apart.interval, reason)


def _is_median(name: str) -> bool:
    return name != LOSS and measure(name).module.AVERAGE == "median"


def _of(totals: Totals, part: Part) -> Totals:
    places = np.array(part.places)
    return Totals(totals.sums[places], totals.weights[places])


def _totals(found: Sequence[Prediction], name: str, inputs: evaluation.Inputs) -> Totals | None:
    """Return what a score is made of, by example; None where that is not known."""
    if name == LOSS:
        return Totals(
            np.array([row["loss"] or 0.0 for row in found]),
            np.array([row.get("count", 1) if row["loss"] is not None else 0.0 for row in found]),
        )
    values = evaluation.each(found, name, inputs)
    if values is None:
        return None
    known = np.array([value is not None for value in values], np.float64)
    return Totals(np.array([value or 0.0 for value in values]), known)
