"""List methods, hooks, tasks, backbones, metrics, plots, analyses, recipes and runs, each with what it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json, aligned, emit


def command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="methods, hooks, tasks, backbones, metrics, plots, analyses, recipes or runs.",
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--runs", metavar="DIR", help="Where the run directories are.")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List methods, hooks, tasks, backbones, metrics, plots, analyses, recipes and runs.

    Each with what it is.
    """
    from graftlab.errors import ConfigError, unknown

    lists: dict[str, Callable[[], dict[str, str]]] = {
        "methods": lambda: _modules("methods"),
        "hooks": lambda: _modules("hooks"),
        "tasks": _tasks,
        "backbones": _backbones,
        "metrics": _metrics,
        "plots": lambda: _modules("plots"),
        "analyses": lambda: _modules("analyses"),
        "recipes": _recipes,
        "runs": lambda: _runs(folder),
    }
    if what is not None and what not in lists:
        raise ConfigError(f"cannot list: {unknown('word', what, lists)}")
    found = {name: lists[name]() for name in ([what] if what else lists)}
    emit(found, as_json, "\n\n".join(_block(name, found[name]) for name in found))


def _block(name: str, entries: dict[str, str]) -> str:
    return f"{name}\n{aligned(list(entries.items())) or '  none'}"


def _modules(kind: str) -> dict[str, str]:
    from graftlab import registry

    return {name: registry.describe(kind, name) for name in registry.names(kind)}


def _tasks() -> dict[str, str]:
    """Return the catalogue's entries under their first names, then the kinds."""
    from graftlab.runfile import catalogue

    entries = {entry["name"]: entry.get("about", "") for entry in catalogue().values()}
    return entries | {f"kind: {name}": about for name, about in _modules("tasks").items()}


def _metrics() -> dict[str, str]:
    """Return metrics with the keys of their settings, then the names of the catalogue for some settings."""
    from graftlab import registry
    from graftlab.runfile import measures

    entries = {}
    for name, about in _modules("metrics").items():
        config = registry.find("metrics", name).Config
        settings = f" Settings: {', '.join(config.model_fields)}." if config else ""
        entries[name] = about + settings
    return entries | {name: entry.about for name, entry in measures.catalogue().items()}


def _backbones() -> dict[str, str]:
    """Return the models of the catalogue under all their spellings, then the kinds."""
    from graftlab.weights.pretrained import aliases

    spellings: dict[int, list[str]] = {}
    for alias, entry in aliases().items():
        spellings.setdefault(id(entry), []).append(alias)
    entries = {}
    for names in spellings.values():
        entry = aliases()[names[0]]
        source = f" ({entry['id']})" if entry.get("id") else ""
        entries[", ".join(names)] = f"{entry['kind']}: {entry.get('about', '')}{source}"
    return entries | {f"kind: {name}": about for name, about in _modules("backbones").items()}


def _recipes() -> dict[str, str]:
    """Return the recipes with their first comment line."""
    from graftlab.config import recipes

    return {
        name: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for name, path in recipes().items()
    }


def _runs(folder: Path) -> dict[str, str]:
    from graftlab.rundir.run import Run

    runs = (Run(config.parent) for config in sorted(folder.glob("*/config.yaml")))
    return {run.path.name: "finished" if run.finished else "not finished" for run in runs}
