"""Copy a commented recipe, to start a run file of one's own from."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json, emit


def command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="As `graftlab list recipes` has them: template.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to; the recipe's own name unless given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a commented recipe, to start a run file of one's own from. Never overwrites."""
    from graftlab.config import recipes
    from graftlab.errors import ConfigError, DiskError, unknown

    known = recipes()
    if recipe not in known:
        raise ConfigError(unknown("recipe", recipe, known))
    target = out or Path(known[recipe].name)
    if target.is_dir():
        target = target / known[recipe].name
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(known[recipe].read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigError(f"{target} exists already. Name another file with --out.") from None
    except OSError as error:
        raise DiskError(f"cannot write {target}: {error}. Name another file with --out.") from error
    emit(
        {"file": str(target)}, as_json, f"{target} is yours: edit it, then graftlab check {target}"
    )
