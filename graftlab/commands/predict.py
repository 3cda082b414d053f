"""Use a run's adapter on new inputs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json, RunFolder


def command(
    run: RunFolder,
    source: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FILE|TEXT|-",
            help="A file (.txt with a text a line; .jsonl, .csv or .parquet with the task's columns; a "
            "folder of images), one text, or - for lines of standard input.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write JSONL here.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    as_json: Json = False,
) -> None:
    """Use a run's adapter on new inputs: one JSON object a line, with label, name and probabilities.

    With --json, one object with the list of them.
    """
    from graftlab import files, inference
    from graftlab.errors import ConfigError, DataError

    if output is not None and output.exists():
        raise ConfigError(f"{output} is there already. Choose another with --output.")
    inputs: Path | list[str] | str = source
    if source == "-":
        inputs = [line for line in sys.stdin.read().splitlines() if line.strip()]
        if not inputs:
            raise DataError("standard input has no line.")
    elif Path(source).exists():
        inputs = Path(source)
    elif _looks_like_a_file(source):
        raise DataError(f"--input {source}: there is no such file.")
    answers = inference.load(run).predict(inputs, batch_size)
    text = "".join(files.dump_json(answer, indent=None) for answer in answers)
    if output is not None:
        files.write_text(output, text)
        print(files.dump_json({"output": str(output), "rows": len(answers)}, None), end="")
        return
    print(files.dump_json({"predictions": answers}) if as_json else text, end="")


def _looks_like_a_file(source: str) -> bool:
    endings = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz")
    return source.endswith(endings) and not any(c.isspace() for c in source)
