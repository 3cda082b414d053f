"""Options of commands that have a model write: what of the run's `task.generation` is to be other."""

from typing import Annotated, Any

import typer

MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="Most tokens of an answer.")
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="0: the most probable token each time.")
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", help="Draw from tokens that together have this probability."),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", min=0, help="Draw from so many tokens; 0: from all.")
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option("--repetition-penalty", help="Above 1, what was said is less probable."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help=r"End an answer at this text; \n is a line's end."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="What is drawn comes from it.")]


def changes(**options: Any) -> dict[str, Any]:
    """Return the options that were given, as fields of `task.generation`."""
    if options.get("stop"):
        options["stop"] = tuple(text.replace("\\n", "\n") for text in options["stop"])
    return {name: value for name, value in options.items() if value is not None and value != []}
