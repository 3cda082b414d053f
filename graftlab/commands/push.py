"""Upload a run's adapter with its model card to the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import AllowCode, Json, RunFolder
from graftlab.terminal import say, say_json


def command(
    run: RunFolder,
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo",
            metavar="ID",
            help="OWNER/NAME; the token's account and the run's name unless given.",
        ),
    ] = None,
    data: Annotated[
        bool, typer.Option("--data", help="Also upload the run's rows, to the data set ID-data.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Upload every file, also what is there already.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Let only the owners see a new repository.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be uploaded, and upload nothing.")
    ] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Upload a run's adapter with its model card to the hub, where it differs from what is there.

    The token is HF_TOKEN of the environment. The card is README.md in the run's folder `adapter`: written
    from the run's result, unless you have made it your own.
    """
    from graftlab.release import push

    done = push.push(Path(run), repo, data, push.Options(force, private, dry_run))
    if as_json:
        say_json({"dry_run": dry_run, "pushed": [pushed.record() for pushed in done]})
        return
    for pushed in done:
        if not pushed.uploaded:
            say(f"{pushed.url}: nothing has changed ({len(pushed.unchanged)} files).")
            continue
        did = "would be uploaded" if dry_run else "uploaded"
        say(f"{pushed.url}: {len(pushed.uploaded)} files {did}, {len(pushed.unchanged)} unchanged")
        for name in pushed.uploaded:
            say(f"  {name}")
