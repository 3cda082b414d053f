"""Compare seven methods on a small model, without any download."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json


def command(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where everything is written.")
    ] = Path("demo"),
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="SST-2's files: does the same on text, with MiniLM."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare seven methods on a small model, without any download.

    A small vision transformer learns the digits 0 to 4; each method adapts it to the digits 5 to 9.
    """
    from graftlab import demo
    from graftlab.commands._comparison import report

    report(demo.carry_out(out, data_dir, quiet=as_json), as_json)
