"""What `evaluate --controls` writes and says: a model's scores beside those of its controls."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.contracts.plot import ControlRow
    from graftlab.inference import Adapted
    from graftlab.runfile import Part

NAME, CELL = 22, 17  # characters of a metric's name, and of a score with half its interval


def check(harness: str | None, errors: int, execute_code: bool) -> None:
    """Refuse what does not go with controls. `Raises:` ConfigError."""
    from graftlab.errors import Argument, ConfigError, Place

    idle = {"harness": harness, "errors": errors, "execute_code": execute_code}
    for name, given in idle.items():
        if given:
            place = Place(argument=Argument(name))
            said = "it does not go with --controls, which scores a run's own task by its metrics."
            raise ConfigError(said, ("Ask for one of the two.",), place=place, kind="conflict")


def show(
    adapted: "Adapted", split: str, batch_size: int | None, other: "Part | None", as_json: bool
) -> None:
    """Score a run beside its controls, write table and figures, and print them. `Raises:` as `compare`."""
    from graftlab import plots, registry
    from graftlab.contracts.plot import CONTROLS
    from graftlab.inference import controls

    found = controls.compare(adapted, split, batch_size, other)
    drawn = registry.having("plots", "DRAWS_FROM", CONTROLS)
    written = plots.draw(drawn, list(found.rows), f"{adapted.file.name}, {split}", found.folder)
    if as_json:
        files = [str(path) for path in written]
        say_json(
            {**found.as_json(), "folder": str(found.folder), "figures": files, "again": found.again}
        )
        return
    for line in lines(found.rows):
        say(line)
    if found.again:
        say(f"Predictions were there already: {', '.join(found.again)}.")
    say(f"Table, figure and predictions are in {found.folder}.")


def lines(rows: "Sequence[ControlRow]") -> Iterator[str]:
    """Yield a block for each task type: a line a metric with the score of each control, and below it by how
    much that differs from the first, with half the 95 % interval over examples."""
    for kind in dict.fromkeys(row["task_type"] for row in rows):
        of_kind = [row for row in rows if row["task_type"] == kind]
        first = of_kind[0]
        yield f"{kind}: {first['examples']:,} examples of {first['sources']:,} texts"
        names = dict.fromkeys(row["control"] for row in of_kind)
        yield f"  {'':<{NAME}}" + "".join(f"{name:>{CELL}}" for name in names)
        for metric in dict.fromkeys(row["metric"] for row in of_kind):
            cells = [row for row in of_kind if row["metric"] == metric]
            yield f"  {metric:<{NAME}}" + "".join(f"{_value(row):>{CELL}}" for row in cells)
            if any(row["difference"] is not None for row in cells):
                yield f"  {'':<{NAME}}" + "".join(f"{_difference(row):>{CELL}}" for row in cells)
        yield ""
    for reason in dict.fromkeys(row["reason"] for row in rows if row["value"] is None):
        named = dict.fromkeys(row["control"] for row in rows if row["reason"] == reason)
        yield f"no value: {', '.join(named)}: {reason}"


def _value(row: "ControlRow") -> str:
    return "-" if row["value"] is None else f"{row['value']:.4g}"


def _difference(row: "ControlRow") -> str:
    if row["difference"] is None:
        return ""
    if row["low"] is None or row["high"] is None:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} ± {(row['high'] - row['low']) / 2:.3f}"
