"""Options that commands share, and how they print."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from graftlab.terminal import say, say_json

WIDEST = 24  # of a first column

File = Annotated[str, typer.Argument(metavar="FILE", help="A run file, or the name of a recipe.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Step = Annotated[
    int | None,
    typer.Option(
        "--step", metavar="N", min=0, help="The model as it was at a step whose checkpoint is kept."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one key, as in training.epochs=1, or with @FILE those of a file; wins over the file.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _allow_code(context: typer.Context, wanted: bool) -> bool:
    """Let functions of other packages be called until the command ends."""
    from graftlab.data import foreign_code

    context.with_resource(foreign_code.allowed(wanted))
    return wanted


AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow_code,
        help="Let code run that a file asks for: by task.source, by task.execute_code.",
    ),
]


def emit(value: object, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text`."""
    if as_json:
        say_json(value)
    else:
        say(text)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Return two columns as lines; a long name has a line of its own."""
    width = max((len(name) for name, _ in rows if len(name) <= WIDEST), default=0)
    lines = []
    for name, text in rows:
        space = f"\n{'':{width + 4}}" if text and len(name) > width else "  "
        lines.append(f"  {name:<{width}}{space}{text}".rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return seconds as a reader says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
