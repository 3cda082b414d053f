"""Train, evaluate and record one run file."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import AllowCode, File, Json, Overrides


def command(
    file: File,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The run's directory; else paths.runs/name."),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start another run beside one that is there already.")
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="KEY",
            help="Go on with the run that is there, this key as the file has it now; repeatable.",
        ),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Train, evaluate and record one run file.

    A run that ended before its first checkpoint is begun anew in its place. One with checkpoints stays: go on
    with it by `graftlab resume`, or with --override, or begin another with --new.
    """
    from graftlab import config, runfile
    from graftlab.commands._report import show_result
    from graftlab.runs import session

    resolved = runfile.resolve(config.read(file, overrides or ()))
    done = session.run(resolved, out, new, session.Options(as_json, override=tuple(override or ())))
    show_result(done, as_json)
