"""The JSON Schema of a run file, a union over the installed names, so that editors complete."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from graftlab import registry
from graftlab.config import Section
from graftlab.runfile import measures
from graftlab.runfile.parts import ANALYSIS, catalogue
from graftlab.runfile.records import Root
from graftlab.weights import pretrained

UNIONS = {"backbone": "backbones", "task": "tasks", "method": "methods"}
PREFIX = "#/$defs/"


def schema() -> dict[str, object]:
    """Return the JSON Schema (2020-12) of run files.

    Parts ask for no key, not even their name: a file that `extends` another says only what differs.
    """
    from graftlab.training import config as training
    from graftlab.training import trackers

    inlined, definitions = _inlined([Root, training.Config, trackers.Config, *_configs()])
    root = inlined(Root)
    properties = root["properties"]
    properties["extends"] = {
        "type": "string",
        "description": "A run file (relative to this one) or recipe that this file is laid over.",
    }
    for section, kind in UNIONS.items():
        properties[section] = _either(properties[section], _variants(kind, inlined))
    properties["hooks"]["items"] = {"anyOf": _hooks(inlined)}
    properties[ANALYSIS] = _either(
        properties[ANALYSIS], [inlined(registry.find("hooks", ANALYSIS).Config)]
    )
    properties["training"] = _either(properties["training"], [inlined(training.Config)])
    properties["tracking"] = _either(properties["tracking"], [inlined(trackers.Config)])
    required = root.pop("required")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "graftlab run file",
        "anyOf": [{"required": ["extends"]}, {"required": required}],
        "$defs": _used(root, definitions),
    }


Inline = Callable[[type[BaseModel]], dict[str, Any]]
"""Returns a section's schema, of which the other sections are references."""


def _configs() -> Iterator[type[BaseModel]]:
    for kind in (*UNIONS.values(), "hooks", "metrics"):
        yield from (registry.find(kind, name).Config or Section for name in registry.names(kind))


def _inlined(sections: Iterable[type[BaseModel]]) -> tuple[Inline, dict[str, object]]:
    """Return what gives a section's schema, and the definitions that it refers to."""
    references, definitions = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(sections)],
        ref_template=PREFIX + "{model}",
    )
    named = {m: reference["$ref"].removeprefix(PREFIX) for (m, _), reference in references.items()}
    return lambda model: copy.deepcopy(definitions["$defs"][named[model]]), definitions["$defs"]


def _variants(kind: str, inlined: Inline) -> list[dict[str, object]]:
    """Return the schema of a section of each part that it may name."""
    metrics = _wholes("metrics", inlined)
    return [
        _with_metrics(_named(inlined(registry.find(kind, name).Config), names), metrics)
        for name in registry.names(kind)
        for names in _identities(kind, name)
    ]


def _wholes(kind: str, inlined: Inline) -> list[dict[str, object]]:
    """Return the schema of a mapping of a name and its fields, for each part of a kind."""
    found = {name: registry.find(kind, name).Config or Section for name in registry.names(kind)}
    return [_named(inlined(model), {"name": {"const": n}}) for n, model in found.items()]


def _hooks(inlined: Inline) -> list[dict[str, object]]:
    """Return what an item of `hooks` may be: a name, or a name with the hook's fields."""
    wholes = [{**whole, "required": ["name"]} for whole in _wholes("hooks", inlined)]
    return [{"enum": registry.names("hooks")}, *wholes]


def _identities(kind: str, name: str) -> Iterator[dict[str, object]]:
    """Yield the keys that say which part a section belongs to."""
    if kind == "methods":
        yield {"name": {"const": name}}
    elif kind == "tasks":
        entries = [spelling for spelling, entry in catalogue().items() if entry["kind"] == name]
        yield {"kind": {"const": name}, "name": {"enum": [*sorted(entries), None]}}
    else:
        known = [alias for alias, entry in pretrained.aliases().items() if entry["kind"] == name]
        model = {"model": {"type": "string", "examples": sorted(known)}} if known else {}
        yield {"kind": {"const": name}, **model}


def _named(variant: dict[str, Any], names: Mapping[str, Any]) -> dict[str, object]:
    """Return a part's schema with its identity among its properties."""
    own = variant.get("properties", {})
    given = {key: {**_described(own.get(key)), **value} for key, value in names.items()}
    variant.pop("required", None)
    return {**variant, "properties": {**given, **{k: v for k, v in own.items() if k not in given}}}


def _with_metrics(variant: dict[str, Any], metrics: list[dict[str, object]]) -> dict[str, object]:
    """Return a part's schema in which each metric is a name, or a mapping of one and its settings."""
    if "metrics" in (own := variant["properties"]):
        known = {"enum": measures.names()}
        spelled = {"type": "string", "pattern": measures.SPELLED.pattern}
        own["metrics"] = {**own["metrics"], "items": {"anyOf": [known, spelled, *metrics]}}
    return variant


def _described(field: Mapping[str, object] | None) -> dict[str, object]:
    return {key: value for key, value in (field or {}).items() if key == "description"}


def _either(field: Mapping[str, object], variants: list[dict[str, object]]) -> dict[str, object]:
    return {**_described(field), "anyOf": variants}


def _used(schema: object, definitions: Mapping[str, object]) -> dict[str, object]:
    """Return the definitions that a schema refers to, directly or not."""
    used: dict[str, object] = {}
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            name = str(item.get("$ref", "")).removeprefix(PREFIX)
            if name in definitions and name not in used:
                used[name] = definitions[name]
                waiting.append(used[name])
    return dict(sorted(used.items()))
