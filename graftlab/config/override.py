"""One override of a run file, `key.key=value`: set in its values, with its place."""

import re
from collections.abc import Sequence
from typing import Any

from graftlab.config.parser import Location, Parsed, parse_value
from graftlab.errors import Argument, ConfigError, Place, overriding

IDENTITY = ("name", "kind")  # what says which part a section belongs to
OVERRULED: dict[Location, tuple[str, object]] = {("training", "epochs"): ("max_steps", 0)}
"""What a file says beside a key, and would go before it: an override of the key puts it back to this."""


def set_key(override: str, parsed: Parsed) -> None:
    """Set one `key.key=value`, creating sections on the way."""
    dotted, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not re.fullmatch(r"[^.\s]+(\.[^.\s]+)*", dotted):
        said = "write key.key=value, as in training.epochs=3, or @FILE."
        raise ConfigError(said, place=overriding(override), kind="syntax", given=override)
    if dotted == "extends":
        remedy = (
            "To set the keys of a file or recipe, write ",
            Argument("overrides", "@NAME"),
            ".",
        )
        said = "only a file can say what it extends."
        raise ConfigError(said, remedy, place=overriding(dotted))
    if not text:
        raise ConfigError(
            "it has no value.",
            (f"Write {dotted}=null for nothing, {dotted}='\"\"' for empty text.",),
            place=overriding(override),
            kind="missing",
        )
    *sections, last = _keys(dotted, parsed.values)
    values, above = _section(sections, parsed, override)
    at = _key(values, last, above, override)
    location = (*above, at)
    for below in [below for below in parsed.places if below[: len(location)] == location]:
        del parsed.places[below]
    values[at] = parse_value(text, overriding(override))
    parsed.places[location] = overriding(dotted)
    if isinstance(values, dict):
        _overrule(values, location, parsed, overriding(dotted))


def _overrule(values: dict[str, Any], location: Location, parsed: Parsed, override: Place) -> None:
    """Put back what a file says beside a key that an override has set, where it would go before it."""
    *above, last = location
    other, usual = OVERRULED.get((*above[-1:], last), ("", None))
    place = parsed.places.get((*above, other))
    if values.get(other, usual) != usual and not (place and place.argument):
        values[other] = usual
        parsed.places[*above, other] = override


def _keys(dotted: str, values: object) -> list[str]:
    """Return the keys of a path. Where keys have dots themselves, as in a `space` or a `vary`, several words
    are one: those of a key that is there, else all that are left."""
    words, found = dotted.split("."), list[str]()
    while words:
        count = 1
        if isinstance(values, dict) and words[0] not in values:
            fits = [n for n in range(2, len(words) + 1) if ".".join(words[:n]) in values]
            has_dots = any("." in key for key in values)
            count = max(fits, default=len(words) if has_dots else 1)
        found.append(".".join(words[:count]))
        if isinstance(values, dict):
            values = values.get(found[-1])
        elif isinstance(values, list):
            number = _number(values, found[-1])
            values = None if number is None else values[number]
        words = words[count:]
    return found


def _number(entries: Sequence[object], key: str) -> int | None:
    """Return which entry of a list is meant, by its number or by a name that it alone has."""
    if re.fullmatch(r"[0-9]{1,9}", key) and int(key) < len(entries):
        return int(key)
    names = [_name_of(entry) for entry in entries]
    return names.index(key) if names.count(key) == 1 else None


def _section(sections: Sequence[str], parsed: Parsed, override: str) -> tuple[Any, Location]:
    """Return the section, or the list, in which an override sets a key, made where it is not there; and its
    location.

    Raises:
        ConfigError: something else stands there.
    """
    values: Any = parsed.values
    location: Location = ()
    for key in sections:
        at = _key(values, key, location, override)
        location = (*location, at)
        if isinstance(values, dict) and values.get(at) is None:
            values[at] = {}
            parsed.places.setdefault(location, overriding(override.partition("=")[0].strip()))
        values = values[at]
        if not isinstance(values, dict | list):
            said = f"{'.'.join(map(str, location))} is {values!r}, not a section."
            raise ConfigError(said, place=overriding(override), given=values)
    return values, location


def _key(values: object, key: str, where: Location, override: str) -> str | int:
    """Return what a key of an override stands for in a section, or in a list: there the number of the entry,
    which may be given by its name (its `as`, `name` or `kind`) too.

    Raises:
        ConfigError: a list has no such entry, or several of that name.
    """
    if not isinstance(values, list):
        return key
    if (number := _number(values, key)) is not None:
        return number
    names = [_name_of(entry) for entry in values]
    dotted = ".".join(map(str, where))
    held = ", ".join(f"{n} ({name})" if name else f"{n}" for n, name in enumerate(names))
    raise ConfigError(
        f"{dotted} is a list with {names.count(key) or 'no'} entries of the name {key!r}.",
        (f"Its entries: {held or 'none'}. Name one by its number, as in {dotted}.0.",),
        place=overriding(override),
        kind="unknown",
        given=key,
        allowed=[name for name in names if name],
    )


def _name_of(entry: object) -> str | None:
    """Return what an entry of a list is called, if it is."""
    if not isinstance(entry, dict):
        return entry if isinstance(entry, str) else None
    return next((str(entry[key]) for key in ("as", *IDENTITY) if entry.get(key)), None)
