"""Where the keys of a run came from: a shipped recipe, and what was said beside it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab import config
from graftlab.runfile import RunFile

APART = ("name", "paths", "tracking", "extends")
"""Keys that say nothing about what is computed."""


def record(file: RunFile, environment: Path) -> dict[str, object] | None:
    """Return what environment.json keeps of where a run's keys came from.

    None of a run that is begun anew from its own config.yaml, in which every key stands.
    """
    shipped = {path.resolve(): name for name, path in config.recipes().items()}
    stands = {at: place.file and Path(place.file).resolve() for at, place in file.places.items()}
    if environment.with_name("config.yaml").resolve() in stands.values():
        return None
    recipe = _nearest({path for path in stands.values() if path in shipped}, shipped)
    own = _chain(recipe, shipped) if recipe else set()
    leaves = _leaves(at for at, path in stands.items() if path not in own)
    return {"recipe": shipped.get(recipe) if recipe else None, "given": leaves}


def read(
    environment: Mapping[str, Any], resolved: Mapping[str, Any]
) -> tuple[str | None, dict[str, object] | None]:
    """Return a run's recipe and what was given beside it, with its value; None where it is not known."""
    kept = environment.get("origin")
    if not isinstance(kept, Mapping):
        return None, None
    found = {key: _at(resolved, key.split(".")) for key in kept["given"]}
    return kept["recipe"], {key: value for key, value in found.items() if value is not None}


def _at(values: object, keys: Sequence[str]) -> object:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _leaves(places: Iterable[tuple[str | int, ...]]) -> list[str]:
    """Return dotted keys below which no other stands; of a list the key alone."""
    keys = {
        ".".join(map(str, at[: next((n for n, k in enumerate(at) if isinstance(k, int)), len(at))]))
        for at in places
        if at[0] not in APART
    }
    return sorted(key for key in keys if not any(other.startswith(f"{key}.") for other in keys))


def _chain(recipe: Path, shipped: Mapping[Path, str]) -> set[Path]:
    """Return a recipe with all those that it extends."""
    found = {recipe}
    while extends := config.read_yaml(recipe).get("extends"):
        by_name = {name: path for path, name in shipped.items()}
        beside = (recipe.parent / str(extends)).resolve()
        recipe = beside if beside.is_file() else by_name[str(extends)]
        found.add(recipe)
    return found


def _nearest(recipes: set[Path], shipped: Mapping[Path, str]) -> Path | None:
    """Return the recipe that no other one extends; the first by name of several, as `--set @NAME` brings."""
    below = {base for path in recipes for base in _chain(path, shipped) - {path}}
    return min(recipes - below, default=None)
