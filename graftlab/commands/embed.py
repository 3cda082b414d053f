"""Make vectors of texts with an embedding model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import AllowCode, Json, Overrides
from graftlab.terminal import say, say_json


class Precision(StrEnum):
    """Number formats that a model may compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DIR",
            help="Texts: .txt (one a line), .jsonl, .csv, .parquet; a folder of `graftlab synthesize`; or a "
            "run file, whose task has them.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="An embedding model: alias (minilm), folder or hub id."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where embeddings.safetensors goes, of a run file one a split; of a folder, itself unless "
            "given.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            "--column", help="The column of the texts; `text`, or the only one that holds text."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit or branch of a hub id.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="Put before each text; the model's own unless given."),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            "--pooling",
            help="How tokens become one vector, of a model that does not say it itself.",
        ),
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Give each vector length 1, whatever the model.")
    ] = False,
    truncate_dim: Annotated[
        int | None, typer.Option("--truncate-dim", min=1, help="Keep so many first numbers.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Tokens of a text that are read.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option("--precision", help="Number format of the model.")
    ] = Precision.float32,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts at a time.")] = 32,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Make vectors of texts with an embedding model.

    Killed anywhere, the same command goes on where it was, to the same bytes. The file says what makes two
    vectors comparable: the model and its hashes, prompt, pooling, normalisation, truncation, length,
    precision.
    """
    from graftlab.embeddings import blocks, texts
    from graftlab.encoders import embedder
    from graftlab.errors import OUT, ConfigError

    if out is None and not Path(source).is_dir():
        raise ConfigError(
            "where are the vectors to go?", ("Say it with ", OUT, "."), kind="missing"
        )
    found = texts.read(source, column, overrides or ())
    asked = embedder.Request(
        model, revision, prompt, pooling, normalize, truncate_dim, max_length, precision.value
    )
    loaded = embedder.load(asked)
    for note in () if as_json else loaded.notes:
        say(f"note: {note}")
    folder = out or Path(source)
    written = {
        split: blocks.write(texts_, loaded, folder / split, batch_size, quiet=as_json)
        for split, texts_ in found.items()
    }
    notes = [note.as_json() for note in loaded.notes]
    if as_json:
        files = {
            split: {"file": str(one.path), "vectors": one.num_vectors, "made": one.made}
            for split, one in written.items()
        }
        made_with = loaded.origin.as_json()
        say_json({"files": files, "width": loaded.width, "made_with": made_with, "notes": notes})
        return
    for one in written.values():
        before = "" if one.made else " (there already)"
        say(f"{one.path}: {one.num_vectors:,} vectors of {one.width} numbers{before}")
