"""Show a run's config, last metrics and result; or the JSON Schema of run files."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from graftlab.commands._options import Json, emit

TAIL = 5  # lines of metrics.jsonl


def command(
    what: Annotated[
        str, typer.Argument(metavar="RUN|schema", help="A run directory, or the word schema.")
    ],
    as_json: Json = False,
) -> None:
    """Show a run's config, last metrics and result; or the JSON Schema of run files."""
    if what == "schema":
        from graftlab.runfile import schema

        found = schema()
        emit(found, as_json, json.dumps(found, indent=2, ensure_ascii=False))
    else:
        shown = _run(Path(what))
        emit(shown, as_json, _text(shown))


def _run(path: Path) -> dict[str, Any]:
    from graftlab.config import read_yaml
    from graftlab.errors import ConfigError, nearest
    from graftlab.runs import Run

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
