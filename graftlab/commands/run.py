"""Train, evaluate and record one run file."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[str, typer.Argument(help="A run file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's directory; otherwise paths.runs/name.")
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start another run beside one that is there already.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train, evaluate and record one run file."""
    from graftlab import config, experiment, runfile
    from graftlab.commands._report import show_result

    resolved = runfile.resolve(config.read(file, overrides or ()))
    done = experiment.run(resolved, out, new, experiment.Options(quiet=as_json))
    show_result(done, as_json)
