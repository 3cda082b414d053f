"""Choose which layer of a large model to plug in, by scores of every layer on training examples."""

from pathlib import Path
from typing import Annotated, Any

import typer

from graftlab.commands._options import AllowCode, File, Json, Overrides
from graftlab.terminal import console, say, say_json, tell


def command(
    file: File,
    overrides: Overrides = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", metavar="LIST", help="Layers to choose from, as in 0,4,8-11; else all."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where results go; else paths.runs/name-selection."
        ),
    ] = None,
    keep_states: Annotated[
        bool, typer.Option("--keep-states", help="Keep the pooled hidden states of each layer.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Also train briefly at every layer, and compare with scores."),
    ] = False,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, help="Steps of each training of --check.")
    ] = 100,
    subset: Annotated[
        int | None,
        typer.Option("--subset", metavar="N", min=3, help="Train --check at so many layers only."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Seed of --check; else the run file's."),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Choose which layer of a large model to plug in.

    Every layer is read once, scored on training examples and let go. Results are selection.json,
    layer_scores.csv, figures, and layer.yaml: the choice as a fragment of a run file.
    """
    from graftlab import config, runfile
    from graftlab.runs import chosen_layer, layer_request
    from graftlab.study import layer_check

    given = [f"method.selection.layers={_numbers(layers)}"] if layers is not None else []
    resolved = runfile.resolve(config.read(file, [*(overrides or ()), *given]))
    settings = layer_request.settings(resolved)
    plan = layer_check.Plan(steps, subset, resolved.seed if seed is None else seed)
    if check:
        layer_check.refuse_few(plan, len(settings.layers) or None)
    where = out or resolved.paths.runs / f"{resolved.name}-selection"
    notify = _keep_quiet if as_json else _tell
    found = chosen_layer.survey(resolved, where, keep_states=keep_states, notify=notify)
    if check:
        again = "the same `graftlab select` command"
        done = layer_check.carry_out(resolved, found, where, plan, quiet=as_json, again=again)
        found = {**found, "check": done.as_json()}
    if as_json:
        say_json({"selection": str(where), **found})
    else:
        _show(found, where)


def _numbers(layers: str) -> str:
    """Return `0,4,8-11` as YAML's list of numbers.

    Raises:
        ConfigError: it is none.
    """
    import re

    from graftlab.errors import ConfigError

    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", layers):
        raise ConfigError(f"--layers {layers!r} is no list of layers, such as 0,4,8-11.")
    ends = [[int(end) for end in part.split("-")] for part in layers.split(",")]
    numbers = [number for end in ends for number in range(end[0], end[-1] + 1)]
    if not numbers:
        raise ConfigError(f"--layers {layers!r} is empty: give the lower end of a range first.")
    return str(numbers)


def _tell(message: str) -> None:
    tell(message)


def _keep_quiet(message: str) -> None:
    """Tell nothing."""


def _show(found: dict[str, Any], where: Path) -> None:
    from rich.table import Table

    title = f"{found['llm']} for {found['slm']} on {found['dataset']}"
    table = Table(title=f"{title}, {found['n_samples']} training examples")
    names = list(found["layers"][0]["scores"])
    table.add_column("layer", justify="right")
    table.add_column("score", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for layer in found["layers"]:
        chosen = layer["layer"] == found["best_llm_layer"]
        cells = [_cell(layer["score"], layer["interval"])]
        cells += [_cell(layer["scores"][name]["value"]) for name in names]
        table.add_row(str(layer["layer"]), *cells, style="bold" if chosen else None)
    console().print(table)
    say(found["statement"])
    if check := found.get("check"):
        say(check["statement"])
    say(f"Everything is in {where}; layer.yaml is the choice for a run file.")


def _cell(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else "")
