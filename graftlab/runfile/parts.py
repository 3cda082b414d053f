"""The part that a section of a run file names, with its fields: task, backbone, method."""

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from graftlab import registry
from graftlab.config import Document, Problems, Section, build, closest, merge, read_yaml
from graftlab.config.foreign import word
from graftlab.config.parser import Location
from graftlab.config.paths import model as model_name
from graftlab.contracts import BackboneKind, HookKind, Method, TaskKind
from graftlab.errors import Fault, GraftlabError, unknown
from graftlab.runfile import measures
from graftlab.runfile.records import Part
from graftlab.weights import pretrained

ANALYSIS = "analysis"
"""The key of a run file that is a hook of the same name."""
ABOUT = ("about", "aliases")  # keys of a catalogue entry that are about it, not fields of its kind


@functools.cache
def catalogue(word: str = "") -> dict[str, dict[str, Any]]:
    """Return the fields of every task of the catalogue, under each of its spellings.

    `name` is the first of them: the file's. With a `word`, at least those that it is a spelling of.
    """
    entries: dict[str, dict[str, object]] = {}
    for name, path in registry.catalogue("tasks", word).items():
        entry = {"name": name, **read_yaml(path)}
        for spelling in (name, *entry.get("aliases", ())):
            assert spelling not in entries, (path, spelling)
            entries[spelling] = entry
    return entries


def _given(document: Document, section: str) -> dict[str, object] | None:
    """Return a section as it stands in the file; None where it is missing or no mapping (Root says so)."""
    values = document.values.get(section)
    return values if isinstance(values, dict) else None


def _part(
    kind: str, values: Mapping[str, object], where: Location, document: Document, problems: Problems
) -> Part[Any] | None:
    """Return the module that a section, at `where`, names, with its fields."""
    section = registry.singular(kind)
    key = "name" if kind in ("hooks", "methods") else "kind"
    name, place, said = values[key], document.place(*where, key), _dotted((*where, key))
    if name not in registry.names(kind):
        known = registry.names(kind)
        message = f"{said}: {unknown(section, str(name), known)}"
        problems.say(place, message, kind="unknown", given=name, allowed=list(known))
        return None
    try:
        module = registry.find(kind, name)
    except ImportError as error:
        problems.say(place, f"{said} {name!r} needs a package that is not there: {error}.")
        return None
    own = {k: v for k, v in values.items() if k != key or k in module.Config.model_fields}
    before = len(problems)
    config = build(module.Config, own, document, where, problems)
    problems.amend(before, functools.partial(_with_owners, kind=kind, name=name, where=where))
    return None if config is None else Part(name, module, config)


def _with_owners(problem: Fault, kind: str, name: object, where: Location) -> Fault:
    """Return a problem with the parts that know a key which this one does not."""
    *inside, key = problem.place.key or (None,)
    if problem.kind != "unknown" or tuple(inside) != where or problem.given != key:
        return problem
    meant = {other: _known(str(key), _fields(kind, other)) for other in registry.names(kind)}
    knows = [other for other, word in meant.items() if word]
    if not knows or meant.get(str(name)):
        return problem
    section = registry.singular(kind)
    owners = f"{section}s of the kind " if kind in ("backbones", "tasks") else ""
    said = f"{meant[knows[0]]!r} is a key of {owners}{', '.join(knows)}; {name} has none."
    remedy = (said,)
    return replace(problem, remedies=(*problem.remedies, remedy))


def _known(key: str, fields: Collection[str]) -> str | None:
    """Return the field that a key is, or stands for in another program."""
    return key if key in fields else word(key, fields)


def _fields(kind: str, name: str) -> Collection[str]:
    try:
        return (registry.find(kind, name).Config or Section).model_fields
    except ImportError:  # a package outside, broken: said where it is asked for
        return ()


def _dotted(where: Location) -> str:
    return ".".join(map(str, where))


def method(document: Document, problems: Problems) -> Part[Method] | None:
    values = _given(document, "method")
    if values is None:
        return None
    if "name" not in values:
        known = ", ".join(registry.names("methods"))
        near = [key for key in values if closest(key, ["name"])]
        hint = f" Did you mean 'name' by {near[0]!r}?" if near else ""
        place = document.place("method", *near[:1])
        problems.say(place, f"method.name is missing.{hint} Known: {known}.", kind="missing")
        return None
    return _part("methods", values, ("method",), document, problems)


def hooks(document: Document, problems: Problems, finished: bool) -> tuple[Part[HookKind], ...]:
    """Return the hooks that are right, in the order of the file, and the one that `analysis:` is; that these
    are a list and a section, Root says.

    Of a run that is `finished` those that are not installed are left out.
    """
    given, analysis = (document.values.get(key) for key in ("hooks", ANALYSIS))
    items: list[tuple[Location, Any]] = [
        (("hooks", n), item) for n, item in enumerate(given if isinstance(given, list) else ())
    ]
    if isinstance(analysis, dict):
        items.append(((ANALYSIS,), {**analysis, "name": ANALYSIS}))
        if "name" in analysis:
            said = f"unknown key in {ANALYSIS}: 'name'. It is the hook of that name."
            problems.say(document.place(ANALYSIS, "name"), said, kind="unknown", given="name")
    found: dict[str, Part[HookKind]] = {}
    for where, item in items:
        values = {"name": item} if isinstance(item, str) else item
        if not isinstance(values, dict):
            continue  # Root says so
        key = _dotted(where)
        if "name" not in values:
            known = ", ".join(registry.names("hooks"))
            problems.say(
                document.place(*where), f"{key}.name is missing. Known: {known}.", kind="missing"
            )
        elif values["name"] in found:
            said = f"{key}: {values['name']!r} is there already: each hook once."
            problems.say(document.place(*where), said, kind="twice")
        elif finished and values["name"] not in registry.names("hooks"):
            continue
        elif part := _part("hooks", values, where, document, problems):
            found[part.name] = part
    return tuple(found.values())


def task(document: Document, problems: Problems) -> Part[TaskKind] | None:
    values = _given(document, "task")
    return None if values is None else _task(values, ("task",), document, problems)


def _task(
    values: dict[str, object], where: Location, document: Document, problems: Problems
) -> Part[TaskKind] | None:
    """Return the kind that a task section, at `where`, names or whose catalogue entry it does."""
    several = _is_of_several(values.get("kind"))
    if (name := values.get("name")) is not None and not several:
        entry = catalogue(str(name)).get(str(name))
        if entry is None:
            hint = unknown(
                "task", str(name), {e["name"] for e in catalogue().values()} | set(_near(name))
            )
            said = f"{_dotted(where)}.name: {hint} Or give task.kind and the data's place."
            problems.say(document.place(*where, "name"), said, kind="unknown", given=name)
            return None
        values = {**merge(_without_about(entry), values), "name": entry["name"]}
    if "kind" not in values:
        kinds = ", ".join(registry.names("tasks"))
        said = f"{_dotted(where)}.name is missing (or {_dotted(where)}.kind, one of: {kinds})."
        problems.say(document.place(*where, "name"), said, kind="missing")
        return None
    if isinstance(metrics := values.get("metrics"), list):
        found = measures.read(metrics, (*where, "metrics"), document, problems)
        values = {**values, "metrics": found}
    part = _part("tasks", values, where, document, problems)
    return _of_several(part, where, document, problems) if part and several else part


def _is_of_several(kind: object) -> bool:
    """Return whether a task kind is made of tasks: its module has `with_parts`."""
    if kind not in registry.names("tasks"):
        return False
    try:
        return registry.find("tasks", kind).with_parts is not None
    except ImportError:  # said where its module is looked for
        return False


def _of_several(
    whole: Part[TaskKind], where: Location, document: Document, problems: Problems
) -> Part[TaskKind] | None:
    """Return a task with the tasks that it is made of; None if one of them is wrong."""
    found: dict[str, Part[TaskKind]] = {}
    for number, given in enumerate(whole.config.tasks):
        at = (*where, "tasks", number)
        called = str(given.get("name"))
        entry = catalogue(called).get(called, {})
        name = str(given.get("as") or entry.get("name") or given.get("kind"))
        place = document.place(*at, "as")
        if not re.fullmatch(r"\w[\w.+-]*", name):
            problems.say(
                place, f"{_dotted(at)}.as: {name!r} is no name: letters, digits, . + - and _."
            )
        elif name in found:
            said = f"{_dotted(at)}: two tasks are named {name!r}. Give one of them another by `as`."
            problems.say(place, said)
        elif _is_of_several(given.get("kind")):
            problems.say(place, f"{_dotted(at)}: a {whole.name} is no part of another.")
        else:
            own = {key: value for key, value in given.items() if key != "as"}
            values = merge(dict(whole.config.each), own)
            if whole.config.data_dir and not {"data_dir", "files", "hub", "source"} & values.keys():
                values["data_dir"] = str(whole.config.data_dir / name)
            moved = _with_places(document, (*where, "each"), at)
            if part := _task(values, at, moved, problems):
                found[name] = part
    if len(found) < len(whole.config.tasks):
        return None
    assert whole.module.with_parts is not None, "of a kind that is made of tasks"
    config = whole.module.with_parts(whole.config, found)
    return Part(whole.name, whole.module, config, found)


def _with_places(document: Document, above: Location, below: Location) -> Document:
    """Return the document in which what stands below `above` stands below `below` too."""
    places = {
        (*below, *at[len(above) :]): place
        for at, place in document.places.items()
        if at[: len(above)] == above and len(at) > len(above)
    }
    return replace(document, places={**places, **document.places})


def _near(name: object) -> Iterable[str]:
    """Return every spelling of the catalogue that starts like `name`, so that one can be suggested."""
    return (spelling for spelling in catalogue() if spelling[:2] == str(name)[:2])


def _without_about(entry: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in entry.items() if key not in ABOUT}


def backbone(document: Document, problems: Problems) -> Part[BackboneKind] | None:
    values = _given(document, "backbone")
    if values is None:
        return None
    kind, model = values.get("kind"), values.get("model")
    kinds = ", ".join(registry.names("backbones"))
    near = [key for key in values if closest(key, ["model"])]
    if kind is None and model is None and near:
        problems.say(
            document.place("backbone", near[0]),
            f"backbone.model is missing. Did you mean 'model' by {near[0]!r}?",
            kind="missing",
            given=near[0],
        )
        return None
    if kind is None and not isinstance(model, str):
        problems.say(
            document.place("backbone", "model"),
            f"backbone.model is {'missing' if model is None else repr(model)}; allowed: an alias, a "
            f"hub id or a folder, as text. Aliases: graftlab list backbones.",
            kind="missing" if model is None else "not_allowed",
            given=model,
        )
        return None
    if kind is None:
        try:
            whole = model_name(str(model), document, ("backbone", "model"))
            kind = pretrained.kind_of(whole)
        except GraftlabError as error:
            problems.include(error, document.place("backbone", "model"))
            return None
    if kind is None and whole != model:  # it is a path
        said = f"backbone.model {model!r}: {pretrained.not_found(whole)}"
        problems.say(document.place("backbone", "model"), said, kind="missing", given=model)
        return None
    if kind is None:
        close = closest(str(model), pretrained.aliases())
        hint = f" Did you mean {close!r}?" if close else ""
        problems.say(
            document.place("backbone", "model"),
            f"backbone.model {model!r} is neither a known alias nor a local folder, so its kind is "
            f"not known.{hint} Else give backbone.kind (one of: {kinds}).",
            kind="unknown",
            given=model,
        )
        return None
    return _part("backbones", {**values, "kind": kind}, ("backbone",), document, problems)
