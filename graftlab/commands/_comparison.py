"""What `compare` and `demo` write and say at the end."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from graftlab import files
from graftlab.errors import StudyIncomplete

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graftlab.study import Comparison, Done


def report(comparison: "Comparison", done: "Sequence[Done]", out: Path, as_json: bool) -> None:
    """Write the comparison's files and print it.

    Raises:
        StudyIncomplete: some of its runs are not finished.
    """
    from graftlab import study

    study.write(comparison, out)
    holes = comparison.holes
    message = (
        f"{len(holes)} of {len(comparison.runs)} runs are not finished; the causes stand above."
    )
    if as_json:
        said = {"study": str(out), **study.as_json(comparison)}
        if holes:
            code = StudyIncomplete.exit_code
            said["error"] = {"type": "StudyIncomplete", "message": message, "exit_code": code}
        print(files.dump_json(said, indent=None), end="")
        if holes:
            raise typer.Exit(StudyIncomplete.exit_code)
        return
    study.show(comparison)
    print(f"Everything is in {out}")
    if holes:
        raise StudyIncomplete(message)
