"""A run file with its bases and overrides, and the place that each key came from."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftlab.config import foreign
from graftlab.config.override import IDENTITY, set_key
from graftlab.config.parser import Location, Parsed, parse_file
from graftlab.config.section import expand
from graftlab.errors import (
    NOWHERE,
    ConfigError,
    GraftlabError,
    Place,
    near_file,
    nearest,
    overriding,
)

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Document:
    """A run file's values, `extends` and overrides applied, nothing checked yet."""

    path: Path
    values: dict[str, Any]
    places: Mapping[Location, Place]
    """Where each key stands: in a file, or among the overrides."""
    origin: Place | None = None
    """What the values were given by, if they stand in no file."""
    from_shell: bool = False
    """Whether relative paths are meant from the shell's folder wherever they stand: in the config.yaml of a
    run, whose paths are absolute but for those of one that was made portable."""

    def place(self, *location: str | int) -> Place:
        """Return where a key stands, or else the nearest key around it, or else the file."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.places:
                return replace(self.places[location[:length]], key=location)
        whole = Place(str(self.path)) if self.origin is None else self.origin
        return replace(whole, key=location)

    def folder(self, *location: str | int) -> Path:
        """Return what a path at a key is relative to: its file's folder, or the shell's where it is in none.

        Recipes have no folder of their own: they are read as if they stood in the shell's.
        """
        file = self.place(*location).file
        if self.from_shell or not file or Path(file).is_relative_to(RECIPES):
            return Path.cwd()
        return Path(file).absolute().parent


@contextlib.contextmanager
def placed(document: Document | None) -> Iterator[None]:
    """Give errors that are about a key of a run file its place there, where they have none."""
    try:
        yield
    except GraftlabError as error:
        if document is None:
            raise
        found = [p.at(document.place(*p.place.key)) if p.place.key else p for p in error.problems]
        if found == list(error.problems):
            raise
        placed = type(error)(found).with_traceback(error.__traceback__)
        placed.__notes__ = getattr(error, "__notes__", [])
        raise placed from error.__cause__


def read(path: str | Path, overrides: Sequence[str] = (), folder: Path = Path()) -> Document:
    """Return a run file, or a shipped recipe by its name, laid over what it extends.

    A relative path is meant from `folder`. `overrides` are `key.key=value` with YAML values, where a list's
    entry is a number or its name, or `@FILE`: a file or recipe whose keys are set, as if each had been given.
    They win over every file, later ones over earlier ones.

    Raises:
        ConfigError: a file or an override cannot be read, or files extend each other in a circle.
    """
    file = _locate(str(path), folder)
    foreign.refuse(file)
    parsed = _with_bases(file, (file.resolve(),))
    foreign.refuse(file, parsed.values)
    for override in overrides:
        parsed = _overridden(parsed, override)
    return Document(file, parsed.values, _only_existing(parsed).places)


def given(
    values: Mapping[str, object], origin: Place = NOWHERE, overrides: Sequence[str] = ()
) -> Document:
    """Return values that stand in no file as a document; `origin` is what they were given by.

    Raises:
        ConfigError: an override cannot be read.
    """
    parsed = Parsed({**values}, {})
    for override in overrides:
        parsed = _overridden(parsed, override)
    return Document(Path(origin.file or ""), parsed.values, parsed.places, origin)


def recipes() -> dict[str, Path]:
    """Return the shipped run files by name: `glue/sst2-lora`."""
    found = sorted(RECIPES.rglob("*.yaml"))
    files = [file for file in found if file.parent.name != "accelerate"]  # those are its launcher's
    return {file.relative_to(RECIPES).with_suffix("").as_posix(): file for file in files}


def lay_over(base: Parsed, top: Parsed) -> Parsed:
    """Return `base` with `top` laid over it: mappings are merged, lists and values replaced.

    A section whose `name` or `kind` is another than the base's drops the base's keys: they belong
    to another part.
    """
    values = {**base.values}
    for key, section in top.values.items():
        below = base.values.get(key)
        if isinstance(section, dict) and isinstance(below, dict) and _same_part(below, section):
            values[key] = merge(below, section)
        else:
            values[key] = section
    return _only_existing(Parsed(values, {**base.places, **top.places}))


def merge(base: Mapping[str, object], top: Mapping[str, object]) -> dict[str, object]:
    """Return `base` with `top` laid over it, whatever their names."""
    merged = {**base}
    for key, value in top.items():
        below = base.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _same_part(base: Mapping[str, object], top: Mapping[str, object]) -> bool:
    below, above = (
        {key: section[key] for key in IDENTITY if key in section} for section in (base, top)
    )
    return below.items() <= above.items() or above.items() <= below.items()


def _only_existing(parsed: Parsed) -> Parsed:
    """Return the places of keys that are still there."""

    def exists(location: Location) -> bool:
        value: Any = parsed.values
        for key in location:
            inside = key in value if isinstance(value, dict) else _index_fits(value, key)
            if not inside:
                return False
            value = value[key]
        return True

    return Parsed(parsed.values, {at: place for at, place in parsed.places.items() if exists(at)})


def _index_fits(value: object, key: str | int) -> bool:
    return isinstance(value, list) and isinstance(key, int) and key < len(value)


def _with_bases(file: Path, chain: tuple[Path, ...]) -> Parsed:
    parsed = parse_file(file)
    if "extends" not in parsed.values:
        return parsed
    name = parsed.values.pop("extends")
    place = parsed.places[("extends",)]
    if not isinstance(name, str) or not name:
        said = f"extends is {name!r}; a file or a recipe's name is wanted."
        raise ConfigError(said, place=place, kind="not_allowed", given=name)
    try:
        base = _locate(name, file.parent)
    except ConfigError as error:
        raise error.at(place) from None
    if base.resolve() in chain:
        circle = " -> ".join(map(str, (*chain, base.resolve())))
        raise ConfigError(f"files extend each other in a circle: {circle}.", place=place)
    return lay_over(_with_bases(base, (*chain, base.resolve())), parsed)


def _locate(name: str, folder: Path) -> Path:
    """Return the file `name` in `folder`, or the shipped recipe of that name.

    A folder does not hide a recipe: `graftlab demo` leaves one with the name of its own recipe.
    """
    shipped = recipes()
    try:
        file = folder / expand(Path(name))
        if file.exists() and not (name in shipped and file.is_dir()):
            return file
    except (OSError, ValueError) as error:  # OSError: a name too long for the file system
        raise ConfigError(f"{name[:300]!r} cannot be a file: {error}.") from None
    if name in shipped:
        return shipped[name]
    close = nearest(name, shipped)
    hint = near_file(file) or (f" Did you mean the recipe {close!r}?" if close else "")
    raise ConfigError(
        f"there is no file {str(file)!r} and no recipe {name!r}.{hint}",
        ("All recipes: graftlab list recipes.",),
        kind="unknown",
        given=name,
    )


def _overridden(parsed: Parsed, override: str) -> Parsed:
    """Return what is there with one override: a key, or all those of a file."""
    if not override.startswith("@"):
        set_key(override, parsed)
        return parsed
    try:
        file = _locate(override[1:], Path())
    except ConfigError as error:
        raise error.at(overriding(override)) from None
    return lay_over(parsed, _with_bases(file, (file.resolve(),)))
