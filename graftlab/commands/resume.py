"""Go on with a run that was stopped or killed, exactly where it was."""

from typing import Annotated

import typer

from graftlab.commands._options import AllowCode, Json, RunFolder
from graftlab.terminal import tell


def command(
    run: RunFolder,
    allow_inexact: Annotated[
        bool,
        typer.Option(
            "--allow-inexact", help="Go on from weights alone where a checkpoint lacks the rest."
        ),
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="KEY",
            help="Accept a key of config.yaml that was changed; repeatable.",
        ),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed, exactly where it was."""
    from graftlab.commands._report import show_result
    from graftlab.rundir.run import Run
    from graftlab.runs import session

    if Run(run).finished:
        tell(
            f"{run} is finished already; this is its result. To train longer, start another with "
            f"`graftlab run {run}/config.yaml --new --set training.max_steps=...`."
        )
    options = session.Options(as_json, allow_inexact, tuple(override or ()))
    show_result(session.resume(run, options), as_json)
