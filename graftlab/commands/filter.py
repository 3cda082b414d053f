"""Keep chosen task types of a folder of rows and vectors."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json
from graftlab.terminal import say, say_json


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Rows and vectors, as a task of kind elm reads them (data_dir)."
        ),
    ],
    only: Annotated[
        list[str],
        typer.Option(
            "--only",
            metavar="NAME",
            help="A task type (summary), or a group: factual, descriptive, creative. May be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Keep chosen task types of a folder of rows and vectors.

    Rows are numbered anew for the vectors that they stand for, and no other vector is copied.
    """
    from graftlab.synthesis import choice

    parts = choice.take(folder, only, out)
    if as_json:
        say_json({"out": str(out), "splits": {s: part._asdict() for s, part in parts.items()}})
        return
    for split, part in parts.items():
        kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(part.types.items()))
        said = f"{part.rows:,} of {part.of_rows:,} rows ({kinds or 'left out'})"
        say(f"{split}: {said}, {part.vectors:,} of {part.of_vectors:,} vectors")
    say(f"{out} holds them: task.data_dir={out}")
