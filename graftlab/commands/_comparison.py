"""What `compare` and `demo` write and say at the end."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from graftlab.errors import StudyIncomplete
from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.study import Comparison


def report(comparisons: "Iterable[tuple[Path, Comparison]]", as_json: bool) -> None:
    """Write each comparison's files into its directory and print it; with JSON all as one object.

    Raises:
        StudyIncomplete: some runs are not finished.
    """
    from graftlab import registry, study
    from graftlab import report as reports
    from graftlab.contracts.plot import COMPARISON

    said: list[dict[str, Any]] = []
    plots = registry.having("plots", "DRAWS_FROM", COMPARISON)
    for out, comparison in comparisons:
        plain = study.as_json(comparison)
        with study.writing(out):
            study.write(comparison, out)
        said.append({"study": str(out), **plain})
        if not as_json:
            study.show(comparison)
        with study.writing(out):
            reports.write(comparison, out, plots)
        if not as_json:
            say(f"The page is {out / 'comparison.html'}; figure, JSON and CSV are beside it.\n")
    runs, holes = (sum(len(one[key]) for one in said) for key in ("runs", "holes"))
    message = f"{holes} of {runs} runs are not finished; the causes stand above."
    if holes and not as_json:
        raise StudyIncomplete(message)
    if as_json:
        found: dict[str, Any] = said[0] if len(said) == 1 else {"studies": said}
        if holes:
            code = StudyIncomplete.exit_code
            found["error"] = {"type": "StudyIncomplete", "message": message, "exit_code": code}
        say_json(found)
        if holes:
            raise typer.Exit(StudyIncomplete.exit_code)
