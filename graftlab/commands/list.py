"""List methods, tasks, backbones, metrics, recipes, runs and all other parts, each with what it is."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands._options import Json, aligned, duration, emit
from graftlab.terminal import say

if TYPE_CHECKING:
    from graftlab.runs.status import Row

RUNS = "runs"
SHOWN = (
    *("run", "status", "score", "metric", "method", "task", "backbone", "trained", "date", "time"),
    "cause",
)
NUMBERS = ("score", "trained", "time")


def command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="methods, hooks, tasks, backbones, metrics, plots, analyses, quantities, recipes or runs.",
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--runs", metavar="DIR", help="Where the run directories are.")
    ] = Path("runs"),
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="KEY=VALUE",
            help="Only runs with this: a column, or a key of config.yaml as in method.rank=8.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="COLUMN", help="As in score; -score is descending."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print runs as CSV.")] = False,
    as_json: Json = False,
) -> None:
    """List methods, hooks, tasks, backbones, metrics, plots, analyses, quantities, recipes and runs.

    Each with what it is; runs, studies, searches and selections as a table: how they stand, scores, what they
    are. With --runs DIR of a study or a search, its runs.
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
        "quantities": lambda: _modules("quantities"),
        "recipes": _recipes,
    }
    if what is not None and what not in (*lists, RUNS):
        raise ConfigError(f"cannot list: {unknown('word', what, [*lists, RUNS])}")
    if what != RUNS and (where or sort or as_csv):
        raise ConfigError("--where, --sort and --csv are for runs: graftlab list runs.")
    found: dict[str, object] = {}
    blocks = []
    for name in [what] if what else [*lists, RUNS]:
        if name == RUNS:
            rows = _runs(folder, where or (), sort)
            found[name] = [dataclasses.asdict(row) for row in rows]
            blocks.append(_table(rows) if what else f"{RUNS}\n{_table(rows)}")
        else:
            found[name] = entries = lists[name]()
            blocks.append(_block(name, entries))
    if as_csv:
        say(_csv(rows), end="")
        return
    emit(found, as_json, "\n\n".join(blocks))


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


def _runs(folder: Path, where: Sequence[str], sort: str | None) -> "list[Row]":
    from graftlab.runs import overview

    return overview.rows(folder, where, sort)


def _csv(rows: "Sequence[Row]") -> str:
    from graftlab.rundir import spreadsheet
    from graftlab.runs import overview

    return spreadsheet.text(map(dataclasses.asdict, rows), overview.COLUMNS)


def _table(rows: "Sequence[Row]") -> str:
    """Return the rows under a head; columns that are empty throughout are left out."""
    lines = [[_words(row).get(name, "") for name in SHOWN] for row in rows]
    used = [n for n, name in enumerate(SHOWN) if n == 0 or any(line[n] for line in lines)]
    shown = [[line[n] for n in used] for line in ([*SHOWN], *lines)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    right = [SHOWN[n] in NUMBERS for n in used]
    text = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in shown
    ]
    return "\n".join(text) if rows else "  none"


def _words(row: "Row") -> dict[str, str]:
    error = "" if row.standard_error is None else f" ± {row.standard_error:.4f}"
    return {
        "run": f"{row.run}/" if row.kind in ("study", "search") else row.run,
        "status": row.status,
        "score": "" if row.score is None else f"{row.score:.4f}{error}",
        "metric": " ".join(filter(None, (row.split, row.metric))),
        "method": row.method or "",
        "task": row.task or "",
        "backbone": _short(row.backbone or ""),
        "trained": "" if row.trained is None else f"{row.trained:,}",
        "date": (row.date or "")[:16],
        "time": "" if row.seconds is None else duration(row.seconds),
        "cause": row.cause or "",
    }


def _short(backbone: str) -> str:
    """Return the last word of a folder's path; a hub id is whole."""
    return Path(backbone).name if Path(backbone).is_absolute() else backbone
