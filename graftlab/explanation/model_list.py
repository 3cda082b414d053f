"""A YAML file that lists models: `models: {name: {path, base, task_type, method}}`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from graftlab import config
from graftlab.config import Document, ModelName, Problems, Section, closest
from graftlab.config.parser import Location, parse_file
from graftlab.errors import Place

MODELS = "models"


class Entry(Section):
    """A model of the list; a text alone is its path."""

    path: Path
    """A run's directory, an adapter's, a trainer's with checkpoint-*/, or a whole model's."""
    base: ModelName | None = None
    """The model that it began from, where it does not name it: a folder, an alias or a hub id."""
    task_type: str | None = None
    """The family of tasks by which figures are grouped; else the task's own name, where that is known."""
    method: str | None = None
    """How it was adapted, where that is not read from it."""


class Named(NamedTuple):
    """An entry, with what it is called and where it stands."""

    name: str
    entry: Entry
    place: Place


def read(path: Path) -> list[Named]:
    """Return the models of a list, in its order; paths in it are relative to it.

    Raises:
        ConfigError: it cannot be read, or keys or values in it are unknown; each with its line.
    """
    parsed = parse_file(path)
    document, problems = Document(path, parsed.values, parsed.places), Problems()
    found = [
        Named(name, entry, document.place(*at))
        for name, at, values in _entries(document, problems)
        if (entry := config.build(Entry, values, document, at, problems)) is not None
    ]
    problems.raise_if_any()
    return found


def _entries(document: Document, problems: Problems) -> Iterator[tuple[str, Location, Any]]:
    """Yield each model's name, key and values: those below `models`, or of the whole file."""
    whole, inside = document.values, MODELS in document.values
    listed = whole[MODELS] if inside else whole
    for key in whole if inside else ():
        if key != MODELS:
            said = f"unknown key beside {MODELS}: {key!r}. Models stand below it."
            problems.say(document.place(key), said, kind="unknown", given=key, allowed=[MODELS])
    if not isinstance(listed, dict) or not listed:
        said = f"{MODELS} is a section of one model or more: `name: {{path: ..., base: ...}}`."
        problems.say(document.place(MODELS), said, kind="not_allowed", given=listed)
        return
    for name, values in listed.items():
        near = None if inside else closest(name, [MODELS])
        if near and isinstance(values, dict) and any(isinstance(v, dict) for v in values.values()):
            said = f"unknown key: {name!r}. Did you mean {near!r}?"
            problems.say(document.place(name), said, kind="unknown", given=name, allowed=[near])
            continue
        at = (MODELS, name) if inside else (name,)
        yield name, at, {"path": values} if isinstance(values, str) else values
