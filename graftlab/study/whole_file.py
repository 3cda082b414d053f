"""A study file that needs no other: what its base, its `extends` and its overrides came to stands in it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graftlab import config
from graftlab.config.parser import Location
from graftlab.errors import Place
from graftlab.rundir.records import Json
from graftlab.runfile import absolute
from graftlab.study.design import Plan
from graftlab.study.labels import NAMED_BY, Cell

FILE = "study.yaml"
"""What it is called in the study's directory."""


class _Written(NamedTuple):
    """A run as its files say it, and with its paths absolute."""

    cell: Cell
    values: Mapping[str, Any]
    places: Mapping[Location, Place]
    absolute: Mapping[str, Any]


def text(plan: Plan) -> str:
    """Return the file: `graftlab compare` of it, wherever it lies, asks for the same runs."""
    given: dict[str, Json] = plan.study.model_dump(mode="json", exclude_unset=True)
    runs = [
        _Written(run.cell, run.document.values, run.document.places, absolute.values(run.file))
        for run in plan.runs
        if run.seed == plan.seeds[0]
    ]
    base = _absolute(plan.base.values, (), runs, plan.base.places)
    for at, key in enumerate(("task", "backbone", "method")):
        if isinstance(items := given.get(f"{key}s"), list) and items:
            names = dict.fromkeys(run.cell[at] for run in runs)
            own = ([run for run in runs if run.cell[at] == name] for name in names)
            given[f"{key}s"] = [_item(*pair, key) for pair in zip(items, own, strict=True)]
    if plan.forgetting is not None and plan.forgetting.written:
        given["forgetting"] = dict(plan.forgetting.written)
    if isinstance(vary := given.get("vary"), dict):
        given["vary"] = _vary(vary, runs)
    return config.dump({**given, "name": plan.name, "base": base})


def _item(item: Any, runs: Sequence[_Written], key: str) -> Any:
    """Return an entry of a list, whose runs these are."""
    if isinstance(item, str):
        return _absolute(item, (key, NAMED_BY[key]), runs)
    if not isinstance(item.get(key), dict):
        return _absolute(item, (key,), runs)
    own = {name: value for name, value in item.items() if (key, name) != ("method", "vary")}
    vary = {"vary": _vary(item["vary"], runs)} if len(own) < len(item) else {}
    return {**_absolute(own, (), runs), **vary}


def _vary(vary: Mapping[str, Any], runs: Sequence[_Written]) -> dict[str, Any]:
    return {
        key: [_absolute(value, tuple(key.split(".")), runs) for value in values]
        if isinstance(values, list)
        else values
        for key, values in vary.items()
    }


def _absolute(
    value: Any,
    at: Location,
    runs: Sequence[_Written],
    places: Mapping[Location, Place] | None = None,
) -> Any:
    """Return what stands at a key with the paths that it has in a run that took it from there."""
    if isinstance(value, dict):
        return {key: _absolute(own, (*at, key), runs, places) for key, own in value.items()}
    if isinstance(value, list):
        return [_absolute(own, (*at, n), runs, places) for n, own in enumerate(value)]
    for run in runs if isinstance(value, str) else ():
        from_here = not places or run.places.get(at) == places.get(at)
        if from_here and _within(run.values, at) == value:
            return _within(run.absolute, at)
    return value


def _within(values: Any, at: Location) -> Any:
    """Return what stands at a key; None where nothing does."""
    for key in at:
        if isinstance(values, dict):
            values = values.get(key)
        elif isinstance(values, list) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return None
    return values
