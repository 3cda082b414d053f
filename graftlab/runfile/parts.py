"""The part that a section of a run file names, with its fields: task, backbone, method."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from graftlab import pretrained, registry
from graftlab.config import Document, Problems, build, closest, merge, read_yaml
from graftlab.errors import GraftlabError, unknown
from graftlab.runfile.records import Part

ABOUT = ("about", "aliases")  # keys of a catalogue entry that are about it, not fields of its kind


@functools.cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Return the fields of every task of the catalogue, under each of its spellings.

    `name` is the first of them: the file's.
    """
    entries: dict[str, dict[str, Any]] = {}
    for name, path in registry.catalogue("tasks").items():
        entry = {"name": name, **read_yaml(path)}
        for spelling in (name, *entry.get("aliases", ())):
            assert spelling not in entries, (path, spelling)
            entries[spelling] = entry
    return entries


def _given(document: Document, section: str) -> dict[str, Any] | None:
    """Return a section as it stands in the file; None where it is missing or no mapping (Root says so)."""
    values = document.values.get(section)
    return values if isinstance(values, dict) else None


def _part(
    kind: str, name: Any, values: Mapping[str, Any], document: Document, problems: Problems
) -> Part | None:
    """Return the module behind a section's name with its fields; `name` and `kind` are the section's."""
    section = kind.removesuffix("s")
    key = "name" if kind == "methods" else "kind"
    place = document.place(section, key)
    if name not in registry.names(kind):
        problems.add(place, f"{section}.{key}: {unknown(section, str(name), registry.names(kind))}")
        return None
    try:
        module = registry.find(kind, name)
    except ImportError as error:
        problems.add(place, f"{section}.{key} {name!r} needs a package that is not there: {error}.")
        return None
    own = {k: v for k, v in values.items() if k != key or k in module.Config.model_fields}
    config = build(module.Config, own, document, (section,), problems)
    return None if config is None else Part(name, module, config)


def method(document: Document, problems: Problems) -> Part | None:
    values = _given(document, "method")
    if values is None:
        return None
    if "name" not in values:
        known = ", ".join(registry.names("methods"))
        near = [key for key in values if closest(key, ["name"])]
        hint = f" Did you mean 'name' by {near[0]!r}?" if near else ""
        place = document.place("method", *near[:1])
        problems.add(place, f"method.name is missing.{hint} Known: {known}.")
        return None
    return _part("methods", values["name"], values, document, problems)


def task(document: Document, problems: Problems) -> Part | None:
    values = _given(document, "task")
    if values is None:
        return None
    place = document.place("task", "name")
    if (name := values.get("name")) is not None:
        entry = catalogue().get(str(name))
        if entry is None:
            hint = unknown(
                "task", str(name), {e["name"] for e in catalogue().values()} | set(_near(name))
            )
            problems.add(place, f"task.name: {hint} Or give task.kind and the data's place.")
            return None
        values = {**merge(_without_about(entry), values), "name": entry["name"]}
    if "kind" not in values:
        kinds = ", ".join(registry.names("tasks"))
        problems.add(place, f"task.name is missing (or task.kind, one of: {kinds}).")
        return None
    return _part("tasks", values["kind"], values, document, problems)


def _near(name: Any) -> Iterable[str]:
    """Return every spelling of the catalogue that starts like `name`, so that one can be suggested."""
    return (spelling for spelling in catalogue() if spelling[:2] == str(name)[:2])


def _without_about(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ABOUT}


def backbone(document: Document, problems: Problems) -> Part | None:
    values = _given(document, "backbone")
    if values is None:
        return None
    kind, model = values.get("kind"), values.get("model")
    kinds = ", ".join(registry.names("backbones"))
    if kind is None and not isinstance(model, str):
        problems.add(
            document.place("backbone", "model"),
            f"backbone.model is {'missing' if model is None else repr(model)}; allowed: an alias, a "
            f"hub id or a folder, as text. Aliases: graftlab list backbones.",
        )
        return None
    if kind is None:
        try:
            kind = pretrained.kind_of(str(model))
        except GraftlabError as error:
            problems.add(document.place("backbone", "model"), str(error), type(error))
            return None
    if kind is None:
        close = closest(str(model), pretrained.aliases())
        hint = f" Did you mean {close!r}?" if close else ""
        problems.add(
            document.place("backbone", "model"),
            f"backbone.model {model!r} is neither a known alias nor a local folder, so its kind is "
            f"not known.{hint} Else give backbone.kind (one of: {kinds}).",
        )
        return None
    return _part("backbones", kind, values, document, problems)
