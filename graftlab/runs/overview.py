"""What a folder of runs holds, as rows of a table: runs, studies, searches, selections, as asked for."""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.config.parser import parse_value
from graftlab.config.reread import reread
from graftlab.errors import Argument, ConfigError, Place, nearest, unknown
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import searches, status
from graftlab.runs.status import Row

COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
OF_COLUMN = {"method.name": "method", "task.name": "task", "backbone.model": "backbone"}
"""Keys of a run file that stand in a column: a finished run's config.yaml need not be read for them."""
PLAN, COMPARISON, SELECTION = "plan.json", "comparison.json", "selection.json"
Look = Callable[[Run], Row]
"""How a run becomes a row: `status.of_run`, or what remembers its answers."""


def rows(
    folder: Path,
    where: Sequence[str] = (),
    sort: str | None = None,
    look: Look = status.of_run,
) -> list[Row]:
    """Return a row for each run, study, search and selection of a folder; of a study's or a search's own
    folder for its runs.

    `where` are `key=value`, of a column or of the run's config.yaml; all have to hold. They come by their
    beginnings, or by the column `sort`, descending with a minus in front; what has none stands last.

    Raises:
        ConfigError: a condition or a column is not one that the folder knows.
    """
    conditions = [_condition(text) for text in where]
    found = list(_entries(folder, look))
    kept = [row for path, row in found if _holds(path, row, conditions)]
    if found and not kept:
        _check_known(conditions, [path for path, row in found if row.kind == "run"], folder)
    return _sorted(kept, sort)


def _condition(text: str) -> tuple[str, object]:
    key, equals, value = (part.strip() for part in text.partition("="))
    place = Place(argument=Argument("where", text))
    if not key or not equals:
        raise ConfigError("write KEY=VALUE, as in method.name=lora.", place=place, kind="syntax")
    return OF_COLUMN.get(key, key), parse_value(value, place) if value else ""


def _holds(path: Path, row: Row, conditions: Sequence[tuple[str, object]]) -> bool:
    """Say whether a row fulfils all conditions; config.yaml is read where a column does not decide."""
    for key, wanted in conditions:
        value = getattr(row, key) if key in COLUMNS else _at(_config(path), key)
        if value is ABSENT or (value != wanted and str(value) != str(wanted)):
            return False
    return True


def _config(path: Path) -> Mapping[str, Any]:
    file = Run(path).config
    return reread(file) if file.is_file() else {}


ABSENT = object()


def _at(values: object, key: str) -> object:
    """Return what stands at a dotted key, or ABSENT."""
    for word in key.split("."):
        if isinstance(values, list) and word.isdigit() and int(word) < len(values):
            values = values[int(word)]
        elif isinstance(values, Mapping) and word in values:
            values = values[word]
        else:
            return ABSENT
    return values


def _check_known(
    conditions: Sequence[tuple[str, object]], runs: Sequence[Path], folder: Path
) -> None:
    """Refuse a key that no run has. `Raises:` ConfigError."""
    for key, _ in conditions:
        if key in COLUMNS or any(_at(_config(path), key) is not ABSENT for path in runs):
            continue
        close = nearest(key, COLUMNS)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"no run in {folder} has the key {key!r}.{hint} Columns: {', '.join(COLUMNS)}; or a whole key "
            f"of config.yaml, as in training.learning_rate.",
            place=Place(argument=Argument("where", key)),
            kind="unknown",
            given=key,
        )


def _sorted(found: list[Row], sort: str | None) -> list[Row]:
    column, falls = (sort or "date").removeprefix("-"), (sort or "").startswith("-")
    column = OF_COLUMN.get(column, column)
    if column not in COLUMNS:
        raise ConfigError(
            unknown("column", column, COLUMNS),
            place=Place(argument=Argument("sort", sort)),
            kind="unknown",
            given=column,
            allowed=list(COLUMNS),
        )
    value = operator.attrgetter(column)
    known = [row for row in found if value(row) is not None]
    return sorted(known, key=value, reverse=falls) + [row for row in found if value(row) is None]


def below(folder: Path) -> Path:
    """Return where the folders of the rows of a folder are: studies and searches have one of their own."""
    return folder / "runs" if searches.is_search(folder) or _is_study(folder) else folder


def _entries(folder: Path, look: Look) -> Iterator[tuple[Path, Row]]:
    """Yield each folder that holds something of ours, with its row."""
    if searches.is_search(folder):
        yield from searches.trials(folder, look)
        return
    if _is_study(folder):
        yield from _of_study(folder, look)
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if Run(path).started:
            yield path, look(Run(path))
        elif (path / SELECTION).is_file():
            yield path, _selection(path)
        elif searches.is_search(path):
            yield path, searches.row_of(path, look)
        elif path.is_dir() and _is_study(path):
            yield path, _study(path, look)


def _is_study(folder: Path) -> bool:
    return (folder / PLAN).is_file() or (
        (folder / "runs").is_dir() and any((folder / "runs").glob("*/config.yaml"))
    )


def _of_study(folder: Path, look: Look) -> Iterator[tuple[Path, Row]]:
    """Yield the runs of a study: those that there are, and those that it waits for."""
    there = {path.parent: look(Run(path.parent)) for path in _configs(folder)}
    yield from there.items()
    for run in _read(folder / PLAN) or []:
        if (path := folder / "runs" / run["run"]) not in there:
            yield path, Row(kind="run", status="waiting", **run)


def _configs(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*/config.yaml"))


def _study(folder: Path, look: Look) -> Row:
    """Return a study's row: where it stands, and the score of what ranks first."""
    runs = [row for _, row in _of_study(folder, look)]
    done = [row.status for row in runs].count("finished")
    failed = [row.status for row in runs].count("failed")
    held = Run(folder).held_by()
    said = f"{done} of {len(runs)} runs finished" + (f", {failed} failed" if failed else "")
    stands: status.Status = "stopped"
    if held:
        stands = "running"
    elif failed:
        stands = "failed"
    elif done == len(runs):
        stands = "finished"
    began = min((row.date for row in runs if row.date), default=None)
    seconds = [row.seconds for row in runs if row.seconds is not None]
    return Row(
        run=folder.name,
        kind="study",
        status=stands,
        date=began,
        seconds=sum(seconds) if seconds else None,
        cause=said,
        **_first(_read(folder / COMPARISON)),
    )


def _first(comparison: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what ranks first in a comparison, where it compares on one task."""
    ranked = [row for row in (comparison or {}).get("rows", ()) if row["rank"] == 1]
    if not ranked or len({(row["task"], row["backbone"]) for row in ranked}) > 1:
        return {}
    best = ranked[0]
    split = best.get("ranked_by", "test")
    setting = " ".join(f"{key}={value}" for key, value in best["setting"].items())
    return {
        "method": f"{best['method']} {setting}".strip(),
        "task": best["task"],
        "backbone": best["backbone"],
        "metric": best["metric"],
        "split": split,
        "score": best[split]["mean"],
        "standard_error": best[split]["standard_error"],
        "trained": best["trainable"],
    }


def _selection(folder: Path) -> Row:
    found = _read(folder / SELECTION)
    if not isinstance(found, dict) or "best_llm_layer" not in found:
        return Row(folder.name, "selection", "failed", cause=f"{folder / SELECTION} is damaged")
    layer = found["best_llm_layer"]
    score = found.get("effects", {}).get(str(layer))
    return Row(
        folder.name, "selection", "finished", score, metric="mixed score", method=f"layer {layer}"
    )


def _read(path: Path) -> Any:
    """Return what a JSON file holds; None where there is none, or it is damaged."""
    try:
        return files.read_json(path)
    except (OSError, ValueError):
        return None
