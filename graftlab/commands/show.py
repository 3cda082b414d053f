"""Show a run, what two runs do not share, a run file's first examples, or the JSON Schema of run files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands import _run_screen
from graftlab.commands._options import AllowCode, Json, Overrides, emit

if TYPE_CHECKING:
    from graftlab.planning.preview import Preview
    from graftlab.runs.summary import Summary

EXAMPLES = 3  # of `show batch`


def command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|batch|schema", help="A run directory, or the word batch or schema."
        ),
    ],
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|RUN]", help="With batch: a run file or a recipe. Or a second run."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Of a run: its whole config, last metrics and result.")
    ] = False,
    overrides: Overrides = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="SPLIT",
            help="With batch: train, which it is unless given, validation or test.",
        ),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            "--examples",
            metavar="N",
            min=1,
            help=f"With batch: how many examples; {EXAMPLES} unless given.",
        ),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Show a run, what two runs do not share, a run file's first examples, or the JSON Schema of run files.

    A run is shown on one screen: scores beside the largest class, curves, what was said beside its recipe,
    and where things are. `show RUN RUN` says what differs: config, data, versions, and scores with their
    paired difference.

    `show batch FILE` reads the data as a run would and marks what is trained. The model is not loaded.
    """
    from graftlab.errors import ConfigError

    if what == "batch":
        if file is None:
            raise ConfigError("show batch needs a run file: graftlab show batch FILE.")
        if everything:
            raise ConfigError("--all is for a run: graftlab show RUN --all.")
        from graftlab import config, runfile
        from graftlab.planning.preview import preview

        resolved = runfile.resolve(config.read(file, overrides or ()))
        found = preview(resolved, split or "train", examples or EXAMPLES)
        emit(found.as_json(), as_json, _batch_text(found))
        return
    of_batch = overrides or split is not None or examples is not None
    if of_batch or (file is not None and (what == "schema" or everything)):
        raise ConfigError(
            f"FILE, --set, --split and --examples are for `show batch FILE`, not for `show {what}`."
        )
    if what == "schema":
        from graftlab.runfile import schema

        described = schema()
        emit(described, as_json, json.dumps(described, indent=2, ensure_ascii=False))
        return
    if file is not None:
        from graftlab.runs import difference

        apart = difference.between(Path(what), Path(file))
        emit(apart.as_json(), as_json, _run_screen.apart(apart))
        return
    from graftlab.runs.summary import summary

    shown = summary(Path(what))
    emit(shown.as_json(), as_json, _text(shown) if everything else _run_screen.screen(shown))


def _batch_text(found: "Preview") -> str:
    """Return the examples as text: what is trained stands in marks; below it each token and its label."""
    lines = []
    for example in found.examples:
        count = sum(token.trained for token in example.tokens)
        lines += [
            f"example {example.index}: {len(example.tokens)} tokens, {count} trained",
            example.text,
            "",
        ]
        width = max(len(json.dumps(t.text, ensure_ascii=False)) for t in example.tokens)
        for token in example.tokens:
            shown = json.dumps(token.text, ensure_ascii=False)
            label = token.id if token.trained else "-"
            lines.append(f"  {token.id:>7}  {shown:<{width}}  {label}")
        lines.append("")
    record = {key: value for key, value in found.record.items() if value}
    lines.append("record: " + json.dumps(record, ensure_ascii=False))
    return "\n".join(lines)


def _text(shown: "Summary") -> str:
    from graftlab.config import dump

    path = shown.run.path
    metrics = "\n".join(json.dumps(line) for line in shown.metrics) or "none yet"
    state = shown.row.status
    result = dump(shown.result).rstrip() if shown.result else "none yet"
    return (
        f"{path} ({state})\n\nconfig\n{dump(shown.config)}\n"
        f"last metrics\n{metrics}\n\nresult\n{result}"
    )
