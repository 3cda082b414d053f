"""A run's score taken apart: units whose mean it is, made of its predictions."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts import Prediction
from graftlab.errors import DataError
from graftlab.rundir.run import Run
from graftlab.runfile.measures import measure
from graftlab.runs import evaluation, paired, prediction


class Units(NamedTuple):
    """One run's score of a split, by groups of its examples; the same groups for all runs on them."""

    values: NDArray[np.float64]
    """(G,), of equal weight."""
    examples: int
    key: str
    """A hash of the examples' numbers and labels: equal where runs were asked the same."""
    sources: int | None
    """How many sources the examples share, where each has one: groups hold them whole."""
    right: tuple[bool, ...] | None
    """By example, where predictions are classes."""


def of_run(run: Run, split: str, metric: str) -> Units | str:
    """Return the units of a run's score, or why there are none.

    Raises:
        CheckpointError: the predictions are not those that the run has written.
    """
    if (reason := paired.unscorable(metric)) is not None:
        return reason
    run.check_if_listed(run.predictions(split))
    try:
        rows = prediction.read(run.predictions(split))
    except DataError as error:
        return str(error)

    def score(kept: Sequence[int]) -> float | None:
        return paired.value([rows[place] for place in kept], metric)

    found, sources = paired.jackknife(score, rows), paired.sources(rows)
    if isinstance(found, str):
        return found
    count = None if sources is None else len({*sources})
    return Units(found, len(rows), _key(rows), count, _right(rows, metric))


def _key(rows: Sequence[Prediction]) -> str:
    told = json.dumps([[row["index"], row["label"]] for row in rows], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _right(rows: Sequence[Prediction], metric: str) -> tuple[bool, ...] | None:
    """Return where predictions equal labels; None where these are no classes."""
    name = metric.rpartition("/")[2]
    if name in ("loss", evaluation.MEAN) or measure(name).module.READS != "classes":
        return None
    if any(isinstance(row["label"], float) for row in rows):
        return None
    return tuple(row["label"] == row["prediction"] for row in rows)
