"""Upload a run's adapter with its model card to the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import AllowCode, Json
from graftlab.terminal import say, say_json


def command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run directory; with --data also a run file or a recipe's name."
        ),
    ],
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo",
            metavar="ID",
            help="OWNER/NAME; the token's account and the run's name unless given.",
        ),
    ] = None,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="Also upload the run's rows, to the data set ID-data; of a run file, its rows alone.",
        ),
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
    from the run's result, unless you have made it your own. The rows of a run file need no run.
    """
    from graftlab.errors import ConfigError
    from graftlab.release import push

    if not data and Path(run).is_file():
        raise ConfigError(
            f"{run} is a file, not the folder of a run.",
            ("Carry it out first with graftlab run, or give --data: its rows are uploaded alone.",),
            kind="not_a_run",
        )
    options = push.Options(force, private, dry_run)
    if data and not Path(run).is_dir():
        done = [push.push_rows(run, repo, options)]
    else:
        done = push.push(Path(run), repo, data, options)
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
