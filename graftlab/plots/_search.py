"""What plots of a search share: optuna's own study of its trials, and optuna's figures."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from graftlab.contracts.plot import Ranged, Searched
from graftlab.rundir.records import Json

if TYPE_CHECKING:
    import optuna
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


Layout: TypeAlias = Literal["constrained", "tight"]


class Trials(NamedTuple):
    """What is drawn: the trials, by what optuna needs of each."""

    objectives: tuple[str, ...]
    higher: tuple[bool, ...]
    numbers: tuple[int, ...]
    states: tuple[str, ...]
    params: tuple[dict[str, Json], ...]
    values: tuple[list[float], ...]
    curves: tuple[dict[int, float], ...]
    space: dict[str, Ranged]


def trials(source: Searched, wanted: int) -> Trials | None:
    """Return the trials of a search; None where fewer than are wanted have ended by themselves.

    Fields go by the last part of their key, where no other ends alike.
    """
    kept = source.trials
    if sum(trial["state"] == "COMPLETE" for trial in kept) < wanted:
        return None
    names = _short(source.space)
    return Trials(
        source.objectives,
        source.higher,
        tuple(trial["number"] for trial in kept),
        tuple(trial["state"] for trial in kept),
        tuple(
            {names.get(key, key): value for key, value in trial["params"].items()} for trial in kept
        ),
        tuple(list(trial["values"]) for trial in kept),
        tuple(dict(trial["curve"]) for trial in kept),
        {names[key]: given for key, given in source.space.items()},
    )


def _short(keys: Iterable[str]) -> dict[str, str]:
    last = {key: key.rpartition(".")[2] for key in keys}
    count = Counter(last.values())
    return {key: name if count[name] == 1 else key for key, name in last.items()}


def study(found: Trials) -> "optuna.Study":
    """Return optuna's study of these trials, in memory."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(
        directions=["maximize" if higher else "minimize" for higher in found.higher]
    )
    rows = zip(found.states, found.params, found.values, found.curves, strict=True)
    for state, params, values, curve in rows:
        known = {key: value for key, value in params.items() if key in found.space}
        made.add_trial(
            create_trial(
                state=TrialState[state],
                params=known,
                distributions={key: _distribution(found.space[key]) for key in known},
                values=values or None,
                intermediate_values=curve,
            )
        )
    return made


def _distribution(given: Ranged) -> "optuna.distributions.BaseDistribution":
    import json

    from optuna import distributions

    if "choice" in given:
        plain = (str, int, float, bool, type(None))
        labels = [
            v if isinstance(v, plain) else json.dumps(v, sort_keys=True) for v in given["choice"]
        ]
        return distributions.CategoricalDistribution(labels)
    log, step = given.get("log", False), given.get("step")
    if "int" in given:
        least, most = given["int"]
        return distributions.IntDistribution(least, most, log=log, step=round(step or 1))
    low, high = given["float"]
    return distributions.FloatDistribution(low, high, log=log, step=step)


def by_value(draw: Callable[..., Any], found: Trials, layout: Layout = "tight") -> "Figure":
    """Return a figure of optuna's about the first objective."""
    name = found.objectives[0]
    if len(found.objectives) == 1:  # without a target it knows which way is better
        return figure(lambda study: draw(study, target_name=name), found, layout)
    return figure(
        lambda study: draw(study, target=lambda trial: trial.values[0], target_name=name),
        found,
        layout,
    )


def figure(
    draw: Callable[["optuna.Study"], Any], found: Trials, layout: Layout = "tight"
) -> "Figure":
    """Return a figure of optuna's, with all its words within it."""
    import matplotlib
    import numpy as np

    matplotlib.use("agg", force=False)
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning

    with pyplot.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Attempting to set identical", UserWarning)
        drawn = draw(study(found))
    first = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
    made: Figure = first.figure
    pyplot.close(made)
    for axes in made.axes:
        axes.set_title("")
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                _few_ticks(axis)
    made.set_layout_engine(layout)
    return made


def _few_ticks(axis: "Axis") -> None:
    """Label a log axis at few round numbers, as it may be narrow; matplotlib labels up to nine a decade."""
    from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 2 else (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs) if decades > 0.5 else AutoLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
