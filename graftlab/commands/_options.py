"""Options that commands share, and how they print."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[str, typer.Argument(metavar="FILE", help="A run file, or the name of a recipe.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one key, as in training.epochs=1; wins over the file.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def emit(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text`."""
    print(json.dumps(value, ensure_ascii=False) if as_json else text)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Return two columns as lines."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)
