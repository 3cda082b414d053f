"""Make rows about texts for a language model that reads their vectors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands._options import AllowCode, Json, Overrides
from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.synthesis.documents import Documents


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Texts: .txt (one a line), .jsonl, .csv, .parquet; or a run file, whose task has them, in "
            "its splits.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TYPE=COLUMN",
            help="Without a model: a task type, and the column that has its answers, as in "
            "summary=abstract. May be repeated.",
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--names", metavar="A,B,...", help="Names of labels that are integers, from 0."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="An instruct model that answers: alias (smollm2_135m), folder or hub id; with --endpoint "
            "its name there.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="Where the model is served as OpenAI's chat completions, up to /v1; the key is "
            "OPENAI_API_KEY of the environment.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="Of a model: a task type, or a group: factual, descriptive, creative. May be repeated; all "
            "13 unless given.",
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            "--parallel",
            min=1,
            metavar="N",
            help="Requests to an endpoint at the same time; 1 unless given.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", min=1, help="Of an answer of a model; 512 unless given."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            "--column", help="The column of the texts; `text`, or the only one that holds text."
        ),
    ] = None,
    validation_share: Annotated[
        float,
        typer.Option("--validation-share", min=0, max=0.9, help="Of the texts of a data file."),
    ] = 0.1,
    test_share: Annotated[
        float, typer.Option("--test-share", min=0, max=0.9, help="Of the texts of a data file.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the splits, and of what a model draws.")
    ] = 0,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Make rows about texts for a language model that reads their vectors.

    Of labelled data, where each --target names a task type and the column that answers it; or by an instruct
    model, which is asked for each task type: killed anywhere, the same command goes on. Writes texts.jsonl
    and rows.jsonl for train, validation and test, which have no text in common; `graftlab embed DIR` makes
    the vectors.
    """
    from graftlab.rundir import files
    from graftlab.synthesis import answerer, documents, folder, labelled

    files.refuse_taken(out)
    columns, listed = labelled.targets(target or ()), labelled.label_names(names)
    asked = answerer.Request(model, endpoint, tuple(only or ()), max_new_tokens, parallel)
    answerer.check(asked, columns, listed)
    shares = documents.Shares(validation_share, test_share, seed)
    found = documents.read(source, column, shares, overrides or ())
    if columns:
        answered, rejected = labelled.rows(found, columns, listed)
        made: dict[str, object] = {"targets": columns}
    else:
        answered, rejected, made = answerer.rows(found, asked, out, seed, quiet=as_json)
    counted = {"dropped": dict(found.dropped), "rejected": dict(sorted(rejected.items()))}
    record = folder.write(out, answered, {"source": source, "seed": seed, **made, **counted})
    if not columns:
        answerer.forget(out)
    if as_json:
        say_json({"out": str(out), **record})
    else:
        _show(out, record, found)


def _show(out: Path, record: dict[str, object], found: "Documents") -> None:
    splits, rejected = record["splits"], record["rejected"]
    assert isinstance(splits, dict)
    assert isinstance(rejected, dict)
    for split, counts in splits.items():
        kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(counts["rows"].items()))
        say(
            f"{split}: {counts['texts']:,} of {counts['of_texts']:,} texts; rows: {kinds or 'none'}"
        )
    for split, count in found.dropped.items():
        say(f"{split}: {count:,} rows dropped, whose text stands in another split")
    for reason, count in rejected.items():
        say(f"rejected {count:,}: {reason}")
    troubles = record.get("troubles")
    assert troubles is None or isinstance(troubles, dict)
    for trouble, count in (troubles or {}).items():
        say(f"asked again {count:,} times after: {trouble}")
    say(f"{out} holds them. Their vectors: graftlab embed {out} --model minilm")
