"""The lists of a study file, methods, tasks and backbones: each entry as what it lays over the base."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graftlab import config
from graftlab.config import Document, Parsed, Problems
from graftlab.config.parser import Location
from graftlab.errors import ConfigError, Place, unknown
from graftlab.runfile import Root
from graftlab.study import labels, variation
from graftlab.study.labels import NAMED_BY
from graftlab.study.variation import Own, Vary

OF_METHODS = ("vary", "tune")
"""What an entry of `methods` may have beside a piece of a run file."""
GIVEN = {"seed": "Give the study seeds.", "name": "A row is called by what it is."}
"""What a study gives each of its runs, and what to do about it in an entry."""


class Entry(NamedTuple):
    """One item of a list, as what it lays over the base."""

    label: str
    laid: Parsed
    vary: Vary
    """Of its own; empty for all but methods."""
    at: Location = ()
    """Where it stands in the document."""
    tune: Mapping[str, Any] = {}
    """A space of its own, as it stands there."""


def entries(document: Document, key: str, base: Parsed, problems: Problems) -> list[Entry]:
    """Return the items of a list; the base's own section where there is no list.

    Raises:
        ConfigError: an item stands twice, or is none.
    """
    items: Sequence[Any] = document.values.get(f"{key}s") or ()
    found = [_entry(document, key, item, (f"{key}s", n)) for n, item in enumerate(items)]
    own = {key: base.values[key]} if key in base.values else {}
    found = found or [Entry("", Parsed(own, {}), {})]
    named = labels.labels([entry.laid.values for entry in found], key, base)
    for index, label in enumerate(named):
        if label in named[:index]:
            place = document.place(f"{key}s", index)
            raise ConfigError(f"{label!r} stands twice.", place=place, kind="twice", given=label)
    for entry in found:
        variation.check(entry.vary, (*entry.at, "vary"), document, problems)
    return [entry._replace(label=label) for label, entry in zip(named, found, strict=True)]


def moved(document: Document, above: Location, below: Location) -> dict[Location, Place]:
    """Return the places of what stands below `above`, as if it stood below `below`."""
    return {
        (*below, *at[len(above) :]): place
        for at, place in document.places.items()
        if at[: len(above)] == above and (below or len(at) > len(above))
    }


def _entry(document: Document, key: str, item: Any, at: Location) -> Entry:
    """Return an item of a list, without its label.

    Raises:
        ConfigError: it is no section and no piece of a run file, or its `vary` is wrong.
    """
    if isinstance(item, str):
        where = document.place(*at)
        places: dict[Location, Place] = {(key,): where, (key, NAMED_BY[key]): where}
        return Entry("", Parsed({key: {NAMED_BY[key]: item}}, places), {}, at)
    if not isinstance(item.get(key), dict):
        _check_section(document, key, item, at)
        return Entry("", Parsed({key: item}, moved(document, at, (key,))), {}, at)
    of_methods = OF_METHODS if key == "method" else ()
    _check_piece(document, item, at, of_methods)
    own = {name: value for name, value in item.items() if name in of_methods}
    laid = {name: value for name, value in item.items() if name not in own}
    found = config.build(Own, own, document, at)
    assert found is not None
    return Entry("", Parsed(laid, moved(document, at, ())), found.vary, at, found.tune)


def _check_section(document: Document, key: str, item: Mapping[str, Any], at: Location) -> None:
    """Refuse what was meant for a piece of a run file. `Raises:` ConfigError."""
    if isinstance(item.get(key), str):
        said = (
            f"{'.'.join(map(str, (*at, key)))} is {item[key]!r}; allowed: a section (key: value)."
        )
        raise ConfigError(
            said, (f"Write {{{key}: {{{NAMED_BY[key]}: {item[key]}}}, ...}}.",),
            place=document.place(*at, key), kind="not_allowed", given=item[key],
        )  # fmt: skip
    for name in OF_METHODS if key == "method" else ():
        if name in item:
            raise ConfigError(
                f"{name} of a method stands beside its section, not in it.",
                (f"Write {{method: {{name: {item.get('name', 'lora')}, ...}}, {name}: ...}}.",),
                place=document.place(*at, name), kind="unknown", given=name,
            )  # fmt: skip


def _check_piece(
    document: Document, item: Mapping[str, Any], at: Location, of_methods: Sequence[str]
) -> None:
    """Refuse keys that no entry has, and those that the study gives. `Raises:` ConfigError."""
    known = [*(name for name in Root.model_fields if name not in GIVEN), *of_methods]
    for name in item:
        if name in GIVEN:
            said = f"{name} of an entry: the study gives each run its own."
            place = document.place(*at, name)
            raise ConfigError(said, (GIVEN[name],), place=place, kind="idle", given=name)
        if name not in known:
            raise ConfigError(
                f"{'.'.join(map(str, at))}: {unknown('key', name, known)}",
                place=document.place(*at, name), kind="unknown", given=name, allowed=known,
            )  # fmt: skip
