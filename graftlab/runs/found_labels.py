"""Class names that a run has found in its data: put into its config.yaml, so that they go where the run goes.

environment.json says under `found` which keys of config.yaml are such ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graftlab.contracts import Problem
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile


def of(file: RunFile, problem: Problem) -> dict[str, list[str]]:
    """Return the class names that no file gives, by the dotted key of config.yaml where they belong."""
    parts = dict(problem.parts)
    found = {}
    for number, (name, part) in enumerate(file.task.parts.items()):
        if _wants(part.config, parts[name]):
            found[f"task.tasks.{number}.labels"] = list(parts[name].labels)
    if not parts and _wants(file.task.config, problem):
        found["task.labels"] = list(problem.labels)
    return found


def _wants(section: object, problem: Problem) -> bool:
    return problem.kind == "classes" and getattr(section, "labels", ()) is None


def put(file: RunFile, found: Mapping[str, object]) -> RunFile:
    """Return the run file with the class names in what is written of it."""
    return replace(file, resolved=_with(file.resolved, found))


def without(config: dict[str, object], run: Run) -> dict[str, object]:
    """Return a run's config as its file gave it, before class names were found."""
    return _with(config, dict.fromkeys(_keys(run)))


def restored(config: dict[str, Any], before: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Return a config with the class names that a run has found, as they stand in what it had before."""
    kept = {}
    for key in _keys(run):
        value: Any = before
        for word in key.split("."):
            value = value[int(word)] if isinstance(value, list) else value[word]
        kept[key] = value
    return _with(config, kept)


def _keys(run: Run) -> list[str]:
    """Return the keys of config.yaml that a run has found in its data."""
    try:
        found: list[str] = files.read_json(run.environment).get("found", [])
    except (OSError, ValueError):
        return []  # the run has not come so far
    return found


def _with(config: dict[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    """Return a config with other values at dotted keys."""
    for key, value in values.items():
        config = _at(config, key.split("."), value)
    return config


def _at(values: Any, keys: list[str], value: object) -> Any:
    if not keys:
        return value
    if isinstance(values, list):
        place = int(keys[0])
        return [_at(v, keys[1:], value) if n == place else v for n, v in enumerate(values)]
    return {**values, keys[0]: _at(values.get(keys[0]), keys[1:], value)}
