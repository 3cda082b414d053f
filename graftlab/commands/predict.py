"""Use a run's adapter on new inputs."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands import _sources
from graftlab.commands._options import Json, RunFolder, Step
from graftlab.commands._vector_options import EmbedderModel, OtherEmbedder, Pooling, Query
from graftlab.commands._writer_options import (
    MaxNewTokens,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    changes,
)
from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.errors import Fault

STDIN = "standard input"


def command(
    run: RunFolder,
    source: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FILE|TEXT|-",
            help="A file (.txt with a text a line; .jsonl, .csv or .parquet with the task's columns; "
            ".safetensors or .npy of vectors; a folder of images), one text, or - for standard input: a "
            "text, or a JSON object with the task's columns, a line. Blank lines are passed over.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="A new .csv, .jsonl or .parquet: the input's own columns, and what is predicted.",
        ),
    ] = None,
    step: Step = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="As the run's, unless given.")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    stop: Stop = None,
    seed: Seed = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="So many answers to each input.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Of a mixture: the task of inputs that do not name theirs. Of vectors: their task type.",
        ),
    ] = None,
    query: Query = None,
    embedder: EmbedderModel = None,
    other_embedder: OtherEmbedder = False,
    pooling: Pooling = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Give inputs as they are, without the run's template.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Use a run's adapter on new inputs: one JSON object a line, with label, name and probabilities.

    Of a run that writes texts it has the completion, and the run's own template is put around the inputs;
    --max-new-tokens to --raw are for these alone, and go before what the run file says.
    With --json, one object with the list of them. `index` is the input's line or row, from 0. A file that
    --output names has `row`, from 1, and the input's own columns besides.
    """
    from graftlab import inference
    from graftlab.inference import answers

    if output is not None:
        answers.check(output)
    written = changes(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        stop=stop,
        seed=seed,
        samples=samples,
    )
    reading = inference.Reading(query, embedder, other_embedder, pooling)
    inference.check(run, raw, written, step)  # a slip is told before the input is read
    with _opened(source) as inputs:
        inference.check(run, raw, written, step, inference.Inputs(inputs, task, reading))
        adapted = inference.load(run, step=step, quiet=False)
        found = adapted.predict(inputs, batch_size, raw, task, reading, **written)
        if output is not None:
            answers.write(output, found, inputs)
    if output is not None:
        said = {"output": str(output), "rows": len(found)}
        say_json(said) if as_json else say(f"{len(found)} predictions are in {output}")
    elif as_json:
        say_json({"predictions": found})
    else:
        for answer in found:
            say_json(answer)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[Path | str]:
    """Give the file that is meant, or the text; standard input becomes a file, to be read like one."""
    from graftlab.errors import DataError

    if source != "-":
        yield _sources.found(source)
        return
    content = sys.stdin.buffer.read()
    first = content.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    if not first:
        raise DataError("standard input has no line.", kind="empty")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("stdin.jsonl" if _is_object(first) else "stdin.txt")
        path.write_bytes(content)
        try:
            yield path
        except DataError as error:
            raise DataError([_of_input(fault, str(path)) for fault in error.problems]) from None


def _of_input(fault: "Fault", path: str) -> "Fault":
    """Return a problem of the file that standard input was written to as one of standard input."""
    place = replace(fault.place, file=STDIN) if fault.place.file == path else fault.place
    return replace(fault, said=fault.said.replace(path, STDIN), place=place)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
