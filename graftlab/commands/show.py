"""Show a run, the tokens and labels of a run file's first examples, or the JSON Schema of run files."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from graftlab.commands._options import Json, Overrides, emit

TAIL = 5  # lines of metrics.jsonl


def command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|batch|schema", help="A run directory, or the word batch or schema."
        ),
    ],
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="With batch: a run file or a recipe.")
    ] = None,
    overrides: Overrides = None,
    split: Annotated[
        str, typer.Option("--split", metavar="SPLIT", help="With batch: train, validation or test.")
    ] = "train",
    examples: Annotated[
        int, typer.Option("--examples", metavar="N", min=1, help="With batch: how many examples.")
    ] = 3,
    as_json: Json = False,
) -> None:
    """Show a run, the tokens and labels of a run file's first examples, or the JSON Schema of run files.

    A run is shown with its config, last metrics and result.

    `show batch FILE` reads the data as a run would and marks what is trained. The model is not loaded.
    """
    from graftlab.errors import ConfigError

    if what == "batch":
        if file is None:
            raise ConfigError("show batch needs a run file: graftlab show batch FILE.")
        found = _batch(file, overrides or (), split, examples)
        emit(found, as_json, _batch_text(found))
        return
    if file is not None or overrides:
        raise ConfigError(f"FILE and --set are for `show batch FILE`, not for `show {what}`.")
    if what == "schema":
        from graftlab.runfile import schema

        found = schema()
        emit(found, as_json, json.dumps(found, indent=2, ensure_ascii=False))
    else:
        shown = _run(Path(what))
        emit(shown, as_json, _text(shown))


def _batch(file: str, overrides: Any, split: str, num_examples: int) -> dict[str, Any]:
    from graftlab import config, runfile
    from graftlab.commands._batch import first_batch

    return first_batch(runfile.resolve(config.read(file, overrides)), split, num_examples)


def _batch_text(found: dict[str, Any]) -> str:
    """Return the examples as text: what is trained stands in marks; below it each token and its label."""
    lines = []
    for example in found["examples"]:
        count = sum(token["trained"] for token in example["tokens"])
        lines += [
            f"example {example['index']}: {len(example['tokens'])} tokens, {count} trained",
            example["text"],
            "",
        ]
        width = max(len(json.dumps(t["text"], ensure_ascii=False)) for t in example["tokens"])
        for token in example["tokens"]:
            shown = json.dumps(token["text"], ensure_ascii=False)
            label = token["id"] if token["trained"] else "-"
            lines.append(f"  {token['id']:>7}  {shown:<{width}}  {label}")
        lines.append("")
    record = {key: value for key, value in found["record"].items() if value}
    lines.append("record: " + json.dumps(record, ensure_ascii=False))
    return "\n".join(lines)


def _run(path: Path) -> dict[str, Any]:
    from graftlab.config import read_yaml
    from graftlab.errors import ConfigError, nearest
    from graftlab.rundir.run import Run

    run = Run(path)
    if not run.started:
        known = (folder.parent.name for folder in path.parent.glob("*/config.yaml"))
        close = nearest(path.name, known)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"{path} is no run directory: it has no config.yaml.{hint} "
            f"All in a folder: graftlab list runs --runs DIR."
        )
    return {
        "run": str(path),
        "finished": run.finished,
        "config": read_yaml(run.config),
        "metrics": run.read_metrics()[-TAIL:],
        "result": run.read_result() if run.finished else None,
    }


def _text(shown: dict[str, Any]) -> str:
    from graftlab.config import dump

    metrics = "\n".join(json.dumps(line) for line in shown["metrics"]) or "none yet"
    state = "finished" if shown["finished"] else f"not finished: graftlab resume {shown['run']}"
    result = dump(shown["result"]).rstrip() if shown["result"] else "none yet"
    return (
        f"{shown['run']} ({state})\n\nconfig\n{dump(shown['config'])}\n"
        f"last metrics\n{metrics}\n\nresult\n{result}"
    )
