"""What plots of a search share: optuna's own study of its trials, and optuna's figures."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.contracts.plot import Ranged, Searched
from graftlab.rundir.records import Json

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure


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


def trials(source: Searched) -> Trials:
    """Return the trials of a search."""
    kept = source.trials
    return Trials(
        source.objectives,
        source.higher,
        tuple(trial["number"] for trial in kept),
        tuple(trial["state"] for trial in kept),
        tuple(dict(trial["params"]) for trial in kept),
        tuple(list(trial["values"]) for trial in kept),
        tuple(dict(trial["curve"]) for trial in kept),
        {**source.space},
    )


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


def by_value(draw: Callable[..., Any], found: Trials, wanted: int) -> "Figure":
    """Return a figure of optuna's about the first objective."""
    name = found.objectives[0]
    if len(found.objectives) == 1:  # without a target it knows which way is better
        return figure(lambda study: draw(study, target_name=name), found, wanted)
    return figure(
        lambda study: draw(study, target=lambda trial: trial.values[0], target_name=name),
        found,
        wanted,
    )


def nothing(said: str) -> "Figure":
    """Return a figure that says why there is nothing to be drawn."""
    from matplotlib.figure import Figure

    return _empty(Figure(figsize=(5, 3)), said)


def figure(draw: Callable[["optuna.Study"], Any], found: Trials, wanted: int) -> "Figure":
    """Return a figure of optuna's, or one that says that there are too few trials for it.

    `wanted` is how many have to have ended by themselves.
    """
    import numpy as np

    ended = sum(state == "COMPLETE" for state in found.states)
    if ended < wanted:
        return nothing(f"{ended} trials have ended: too few")
    import matplotlib

    matplotlib.use("agg", force=False)
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning

    with pyplot.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        drawn = draw(study(found))
    first = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
    made: Figure = first.figure
    pyplot.close(made)
    for axes in made.axes:
        axes.set_title("")
    return made


def _empty(made: "Figure", said: str) -> "Figure":
    axes = made.subplots()
    axes.text(0.5, 0.5, said, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()
    return made
