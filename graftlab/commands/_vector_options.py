"""Options of commands that ask a run about vectors, or about texts that become vectors."""

from typing import Annotated

import typer

Query = Annotated[
    str | None,
    typer.Option(
        "--query", metavar="TEXT", help="Of vectors: asked about those that say nothing themselves."
    ),
]
EmbedderModel = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        metavar="MODEL",
        help="Where the embedding model of texts is, unless it is where it was.",
    ),
]
OtherEmbedder = Annotated[
    bool,
    typer.Option(
        "--other-embedder", help="Take vectors of another embedding model than the run's."
    ),
]
Pooling = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        help="How tokens become one vector, where neither the run's vectors nor the model say it.",
    ),
]
