"""Show a folder of runs in a browser of this machine: live curves, states, differences; stop and resume."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json, emit


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="A folder of runs, or a study's.")
    ] = Path("runs"),
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="N", min=0, max=65535, help="Where to listen; 0 is any free."
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Show a folder of runs in a browser of this machine: live curves, states, differences; stop and resume.

    It listens on 127.0.0.1 alone and answers to who has the token of the address that it prints. Runs go on
    when it ends. From another machine: ssh -L PORT:127.0.0.1:PORT.
    """
    from graftlab.errors import Argument, ConfigError, Place, missing_extra

    try:
        from graftlab.browser import server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(missing_extra("graftlab serve", error.name, "serve")) from None
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder. Name the one that holds runs.",
            place=Place(argument=Argument("folder", str(folder))), kind="missing", given=str(folder),
        )  # fmt: skip
    listening = server.listen(port)
    token, port = server.new_token(), listening.getsockname()[1]
    address = f"http://{server.ADDRESS}:{port}/?token={token}"
    emit({"url": address, "folder": str(folder), "port": port}, as_json,
         f"Open {address}\nCtrl-C ends the page; runs go on.")  # fmt: skip
    sys.stdout.flush()  # a program that reads it waits for the address
    server.serve(folder, listening, token)
