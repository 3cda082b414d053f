"""Run files as they are written, but with paths that mean the same wherever the values stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from graftlab.config import Document, Paths
from graftlab.config.parser import Location
from graftlab.config.paths import absolute
from graftlab.runfile.records import RunFile


def values(file: RunFile, document: Document | None = None) -> dict[str, Any]:
    """Return what a run file says, every path absolute; or another `document` whose parts are the same."""
    given = document or file.document
    assert given is not None, "it was read"
    types: dict[str, object] = {
        "backbone": type(file.backbone.config),
        "task": type(file.task.config),
        "method": type(file.method.config),
        "training": type(file.training),
        "tracking": type(file.tracking),
        "paths": Paths,
    }
    found = {k: absolute(types.get(k), v, given, (k,)) for k, v in given.values.items()}
    _each(found, "hooks", [part.config for part in file.hooks], given, ("hooks",))
    if isinstance(found.get("task"), dict):
        parts = [part.config for part in file.task.parts.values()]
        _each(found["task"], "tasks", parts, given, ("task", "tasks"))
    return found


def _each(
    above: dict[str, Any], key: str, configs: Sequence[object], document: Document, at: Location
) -> None:
    """Make the paths of a list of sections absolute, where each is one of these."""
    items = above.get(key)
    if isinstance(items, list) and len(items) == len(configs):
        above[key] = [
            absolute(type(config), item, document, (*at, n)) if isinstance(item, Mapping) else item
            for n, (item, config) in enumerate(zip(items, configs, strict=True))
        ]
