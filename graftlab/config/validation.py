"""A section built from a run file's values, with every error placed and put into words."""

import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, Unpack

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from graftlab.config import foreign
from graftlab.config.document import Document
from graftlab.config.parser import Location
from graftlab.config.paths import absolute, elsewhere, is_model, names_model, sections
from graftlab.config.problems import Problems, closest, unknown_key
from graftlab.config.section import Conflict, Section
from graftlab.errors import Argument, Mended, Words

SectionT = TypeVar("SectionT", bound=Section)

WANTED = {  # pydantic's error types, in words
    "bool": "true or false",
    "dict": "a section (key: value)",
    "float": "a number",
    "frozen_set": "a list",
    "int": "a whole number",
    "list": "a list",
    "model": "a section (key: value)",
    "none": "null",
    "path": "a path",
    "set": "a list",
    "string": "text",
    "tuple": "a list",
}
ONE_WORD = {"backbone": "model", "task": "name", "method": "name"}
"""What a section that is one word stands for."""
BOUNDS = (
    (annotated_types.Gt, "gt", "above"),
    (annotated_types.Ge, "ge", "at least"),
    (annotated_types.Lt, "lt", "below"),
    (annotated_types.Le, "le", "at most"),
)


def build(
    section: type[SectionT],
    values: Any,
    document: Document,
    where: Location,
    problems: Problems | None = None,
) -> SectionT | None:
    """Return the section that `values` describe; `where` is the section's key in the document.

    Paths become absolute: each is relative to the file that it stands in. Types are taken strictly: "3" is
    not a number and 1 is not true. With `problems`, what is wrong is added to them and None returned.

    Raises:
        ConfigError: something is wrong, and no `problems` were given to collect it.
    """
    own = Problems() if problems is None else problems
    sayer, before = _Sayer(document, where, own), len(own)
    _refuse_misplaced(section, values, sayer)
    values = absolute(section, {} if values is None else values, document, where)
    try:
        # By way of JSON because pydantic's strict mode takes a list for a tuple, and text for a
        # path, only from there.
        built = section.model_validate_json(json.dumps(values), strict=True)
        if len(own) == before:
            return built
    except ValidationError as error:
        _explain(section, error, values, sayer)
    if problems is None:
        own.raise_if_any()
    return None


class _Sayer(typing.NamedTuple):
    """Adds problems of one section, given locations inside it."""

    document: Document
    where: Location
    problems: Problems

    def say(self, location: Location, message: str, **fields: Unpack[Mended]) -> None:
        self.problems.say(self.document.place(*self.where, *location), message, **fields)

    def taken_back(self, *locations: Location) -> tuple[Words, ...]:
        """Return how to take back the one of two keys that a file says, where an override says the other."""
        places = {at: self.document.place(*self.where, *at) for at in locations}
        files = [at for at, place in places.items() if not place.argument]
        if len(files) != 1:
            return ()
        null = Argument("overrides", f"{self.dotted(files[0])}=null")
        return (("The file's is taken back by ", null, "."),)

    def dotted(self, location: Location) -> str:
        return ".".join(map(str, (*self.where, *location)))


def _refuse_misplaced(section: type[Section], values: object, sayer: _Sayer) -> None:
    """Refuse a model's name that is a folder where the command is given, but not where its file stands."""
    for key, field in section.model_fields.items():
        name = values.get(key) if isinstance(values, dict) else None
        at = (*sayer.where, key)
        if not (isinstance(name, str) and names_model(field) and is_model(Path(name))):
            continue
        if (written := elsewhere(name, sayer.document, at)) is not None:
            said = (
                f"{sayer.dotted((key,))} {name!r} is a folder where you are, but paths in a run file are "
                f"relative to it. Write {written!r} for that folder; for a model of that name on the "
                f"hub, be elsewhere."
            )
            sayer.say((key,), said, kind="ambiguous", given=name)


def _explain(section: type[Section], error: ValidationError, values: Any, sayer: _Sayer) -> None:
    wrong: dict[Location, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        location = _real(detail["loc"], values)
        match detail["type"]:
            case "extra_forbidden":
                known = [name for model in _models(section, location[:-1]) for name in model]
                *inside, key = location
                said = unknown_key(sayer.dotted(tuple(inside)), str(key), known)
                theirs = foreign.answer(str(key), sayer.dotted(tuple(inside)), known)
                sayer.say(
                    location, said, kind="unknown", given=str(key), allowed=sorted(known),
                    remedies=((theirs,),) if theirs else (),
                )  # fmt: skip
            case "missing" if isinstance(detail["loc"][-1], int):  # of a tuple's items
                said = f"{sayer.dotted(location)} is {_shown(detail['input'])}: too short a list."
                sayer.say(location, said, kind="not_allowed", given=detail["input"])
            case "missing":
                whole = (*location, detail["loc"][-1])
                sayer.say(whole, f"{sayer.dotted(whole)} is missing.", kind="missing")
            case "value_error" | "assertion_error":
                raised = detail["ctx"]["error"]
                at = (*location, raised.key) if isinstance(raised, Conflict) else location
                said = f"{sayer.dotted(location) or 'the file'}: {str(raised).rstrip('.')}."
                kind, other = getattr(raised, "kind", "refused"), getattr(raised, "other", "")
                remedies = sayer.taken_back(at, (*location, other)) if other else ()
                sayer.say(at, said, kind=kind, remedies=remedies)
            case _:  # a type or a range; a union gives one detail for each of its members
                wrong.setdefault(location, []).append(detail)
    for location, details in wrong.items():
        if any(other != location and other[: len(location)] == location for other in wrong):
            continue  # of a union's members, the one that came further explains more
        field = _field(section, location)
        wanted = " or ".join(dict.fromkeys(_wanted(detail, field) for detail in details))
        given = details[0]["input"]
        hint = _hint(given, wanted) or _meant(given, details, field, location)
        name = sayer.dotted(location) or "the file"
        said = f"{name} is {_shown(given)}; allowed: {wanted}.{hint}"
        sayer.say(location, said, kind="not_allowed", given=given, allowed=wanted)


def _real(loc: Location, values: Any) -> Location:
    """Return the part of pydantic's location that stands in the values: without a union's tags."""
    location: Location = ()
    for key in loc:
        is_item = isinstance(values, list) and isinstance(key, int) and key < len(values)
        if is_item or (isinstance(values, dict) and key in values):
            values = values[key]
            location = (*location, key)
    return location


def _models(section: type[BaseModel], location: Location) -> list[dict[str, FieldInfo]]:
    """Return the fields of each model that may stand at a location."""
    found, by_name = [section], False
    for key in location:
        if isinstance(key, int):
            continue
        if by_name:  # one of the values of a dict
            by_name = False
            continue
        fields = [model.model_fields[key] for model in found if key in model.model_fields]
        found = [model for field in fields for model in sections(field.annotation)]
        by_name = any(typing.get_origin(field.annotation) is dict for field in fields)
    return [model.model_fields for model in found]


def _field(section: type[Section], location: Location) -> FieldInfo | None:
    if not location:
        return None
    fields = [model[str(location[-1])] for model in _models(section, location[:-1])
              if location[-1] in model]  # fmt: skip
    return fields[0] if len(fields) == 1 else None


def _wanted(detail: ErrorDetails, field: FieldInfo | None) -> str:
    """Return in words what is allowed: the type with its range, or the choices."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind in ("string_too_short", "string_too_long"):
        return " and ".join(
            f"{word} {context[key]} characters" if context[key] != 1 else f"{word} 1 character"
            for key, word in (("min_length", "at least"), ("max_length", "at most"))
            if key in context
        )
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        if isinstance(detail["input"], dict):
            return f"a section with at {'least' if kind == 'too_short' else 'most'} {bound} key"
        return f"a list of at {'least' if kind == 'too_short' else 'most'} {bound}"
    if kind == "string_pattern_mismatch" and field is not None and field.examples:
        return f"text such as {', '.join(map(str, field.examples))}"
    name = re.sub(r"_(type|parsing|from_float|required|parsing_size)$", "", kind)
    bounded = any(key in context for _, key, _ in BOUNDS)
    if bounded or name in ("int", "float", "finite_number"):
        whole = name == "int" or (field is not None and field.annotation is int)
        noun = "a whole number" if whole else "a number"
        return " ".join(filter(None, (noun, _range(context, field))))
    return WANTED.get(name, detail["msg"][:1].lower() + detail["msg"][1:])


def _meant(
    given: object, details: Sequence[ErrorDetails], field: FieldInfo | None, location: Location
) -> str:
    """Return what was probably meant by one word: a choice, or a list or a section of it."""
    if not isinstance(given, str | int | float) or isinstance(given, bool):
        return ""
    kinds = [detail["type"] for detail in details]
    choices = [
        re.findall(r"'([^']*)'", str(d["ctx"]["expected"]))
        for d in details
        if d["type"] == "literal_error"
    ]
    if choices and isinstance(given, str) and (close := closest(given, choices[0])):
        return f" Did you mean {close!r}?"
    if "model_type" in kinds and field is not None:
        for section in sections(field.annotation):
            name, first = next(iter(section.model_fields.items()))
            if name == "name" or first.is_required() or isinstance(given, int | float):
                return f" Write {{{name}: {given}}}."
    one = ONE_WORD.get(str(location[0])) if len(location) == 1 else None
    if "dict_type" in kinds and one is not None:
        return f" Write {{{one}: {given}}}."
    if not isinstance(given, str):
        return ""
    return f" Write [{given}]." if "tuple_type" in kinds or "list_type" in kinds else ""


def _range(context: Mapping[str, object], field: FieldInfo | None) -> str:
    bounds = {key: context[key] for _, key, _ in BOUNDS if key in context}
    for item in field.metadata if field else ():
        bounds |= {key: getattr(item, key) for kind, key, _ in BOUNDS if isinstance(item, kind)}
    return " and ".join(f"{word} {bounds[key]}" for _, key, word in BOUNDS if key in bounds)


def _shown(given: object) -> str:
    text = {True: "true", False: "false", None: "null"}.get(given) if _plain(given) else None
    text = text or repr([*given] if isinstance(given, tuple) else given)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _plain(given: object) -> TypeGuard[bool | None]:
    return given is None or isinstance(given, bool)


def _hint(given: object, wanted: str) -> str:
    """Return what to write instead, where YAML explains the mistake."""
    number = "number" in wanted
    if isinstance(given, str):
        if "true or false" in wanted and given.lower() in ("on", "off", "yes", "no", "y", "n"):
            return f" In YAML 1.2 {given} is text: write true or false."
        if number and re.fullmatch(r"[-+]?\d+(_\d+)+(\.\d+)?", given):
            return f" Write it without underscores: {given.replace('_', '')}."
        if number and re.fullmatch(r"\s*[-+]?[\d.]+([eE][-+]?\d+)?\s*", given):
            return " Write it without quotes."
    if wanted == "text" and isinstance(given, bool | int | float):
        return f' Put it in quotes if it is text: "{_shown(given)}".'
    if "whole number" in wanted and isinstance(given, float) and given.is_integer():
        return f" Write {given:.0f}."
    return ""
