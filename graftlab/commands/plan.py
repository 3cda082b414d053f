"""Say before a run what it takes: memory by part, steps, disk, downloads, and what may go wrong."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands._options import AllowCode, File, Json, Overrides, aligned
from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.planning.forecast import Examples, Memory, Plan, Steps

GROUPS = (
    "frozen weights", "trained weights", "gradients", "optimizer state", "method state", "inputs",
    "activations", "logits and loss", "temporary",
)  # fmt: skip


def command(
    file: File,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The run's directory; else paths.runs/name."),
    ] = None,
    longest: Annotated[
        int | None,
        typer.Option(
            "--longest", min=1, metavar="N", help="Assume so many tokens for the longest example."
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also load the model and time two steps; writes nothing."),
    ] = False,
    accelerate: Annotated[
        str | None,
        typer.Option(
            "--accelerate",
            metavar="FILE",
            help="A config file of accelerate, or the name of a recipe: plan one of its processes.",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, metavar="N", help="Plan one of so many processes."),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Say before a run what it takes: memory by part, steps, disk, downloads, and what may go wrong.

    The model is built without its weights, and its first steps are gone through on tensors that have
    no memory. Nothing is downloaded but config and tokenizer, and nothing is written. Exit code 8 where
    the disk has no room for a checkpoint.
    """
    from graftlab import config, runfile
    from graftlab.errors import DiskError
    from graftlab.planning import forecast, shards

    run = runfile.resolve(config.read(file, overrides or ()))
    shared = shards.Sharing(processes or 1)
    if accelerate is not None:
        shared = shards.read(accelerate, processes)
    with config.placed(run.document):
        made = forecast.plan(run, shared, longest, probe, out)
    refused = made["disk"]["refused"]
    if as_json:
        say_json(made)
        if refused:
            raise typer.Exit(DiskError.exit_code)
        return
    say(text(made))
    if refused:
        raise DiskError(refused)


def text(made: "Plan") -> str:
    """Return the plan as lines."""
    from graftlab.contracts import read_notes

    rows = [*_run(made), ("", ""), *_memory(made["memory"]), ("", ""), *_rest(made)]
    said = [f"warning: {note}" for note in read_notes(made["warnings"])]
    said += [f"note: {note}" for note in read_notes(made["notes"])]
    return "\n".join([aligned(rows), *said])


def _run(made: "Plan") -> list[tuple[str, str]]:
    parameters, data, training = made["parameters"], made["data"], made["training"]
    number, kind = made["processes"]["number"], made["processes"]["kind"]
    where = f"{made['device']}, {made['precision']}"
    if number > 1:
        where += f", one of {number} processes" + (f" ({kind})" if kind != "whole" else "")
    rows = [
        ("run", f"{made['name']}: {made['method']} on {made['backbone']}, {made['task']}"),
        ("device", where),
        (
            "parameters",
            f"{parameters['trainable']:,} of {parameters['total']:,} train ({parameters['share']:.2%})",
        ),
        ("examples", _examples(data)),
        ("steps", _steps(training)),
        ("batch", _batch(training)),
    ]
    if training["tokens"] is not None:
        about = "about " if data["sampled"] else ""
        rows.append(
            ("tokens", f"{about}{training['tokens']:,}, {training['padding']:.0%} padding beside")
        )
    return rows


def _examples(data: "Examples") -> str:
    if data["examples"] is None:
        return f"not known, up to {data['longest']} tokens"
    evaluated = [f"{data[split]:,} {split}" for split in ("validation", "test") if split in data]
    said = ", ".join([f"{data['examples']:,}", *evaluated])
    if data["mean"] is None:
        return said
    return f"{said}; longest {data['longest']} tokens, mean {data['mean']:.0f}"


def _steps(training: "Steps") -> str:
    if training["steps"] is None:
        return "not known"
    said = f"{training['steps']:,}"
    if training["epochs"] is not None:
        said += (
            f" ({training['epochs']:.3g} epochs), {training['evaluations']} evaluations, "
            f"{training['checkpoints']} checkpoints"
        )
    return said


def _batch(training: "Steps") -> str:
    pieces = training["micro_batches"]
    said = f"{training['effective_batch']} examples"
    return f"{said}, {training['micro_batch']} at once" + (f" in {pieces} pieces" * (pieces > 1))


def _memory(found: "Memory") -> list[tuple[str, str]]:
    rows = [("memory", f"{size(found['peak'])} at its peak, in {found['when']}")]
    rows += [(f"  {part}", size(found["parts"][part])) for part in GROUPS if part in found["parts"]]
    rows.append(("evaluation", size(found["evaluation"])))
    free = "" if found["free"] is None else f"; {size(found['free'])} are free"
    rows.append(("beside it", f"{size(found['baseline'])} of this process without a model{free}"))
    return rows


def _rest(made: "Plan") -> list[tuple[str, str]]:
    disk, fetched = made["disk"], made["download"]
    rows = [
        (
            "disk",
            f"{size(disk['checkpoint'])} a checkpoint, {size(disk['needed'])} in all; "
            f"{size(disk['free'])} are free in {disk['folder']}",
        ),
        ("download", f"weights {_fetched(fetched['weights'])}, data {_fetched(fetched['data'])}"),
    ]
    if (took := made["time"]) is not None:
        rows.append(
            (
                "time",
                f"{took['seconds_per_step']:.3g} s a step, {_duration(took['seconds'])} of training",
            )
        )
    return rows


def _fetched(bytes_: int | None) -> str:
    return "not known" if bytes_ is None else size(bytes_) if bytes_ else "here already"


def size(number: int) -> str:
    """Return bytes in MiB or GiB, three digits or more."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
