"""Write a run's adapter in a form that other programs load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from graftlab.commands._options import Json, RunFolder
from graftlab.commands._vector_options import EmbedderModel, OtherEmbedder, Pooling, Query
from graftlab.terminal import say, say_json

FORMATS = ("lora", "prompt-embeds")


def command(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="A new folder.")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="lora: plain PEFT LoRA. prompt-embeds: requests for a server of the language model, of a "
            "run that reads vectors.",
            metavar="FORMAT",
        ),
    ] = "lora",
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE|TEXT",
            help="Of prompt-embeds: vectors, texts or rows, as `graftlab predict` takes them.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Of prompt-embeds: task type of inputs that do not name theirs.",
        ),
    ] = None,
    query: Query = None,
    embedder: EmbedderModel = None,
    other_embedder: OtherEmbedder = False,
    pooling: Pooling = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Say what takes the room in the adapter; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run's adapter as plain PEFT LoRA, which needs no graftlab to be loaded, or as requests."""
    from graftlab.errors import ConfigError, unknown
    from graftlab.release import export

    if audit == (out is not None):
        raise ConfigError("give either --out DIR, or --audit.")
    if form not in FORMATS:
        raise ConfigError(unknown("export format", form, FORMATS))
    asked = {
        "input": source,
        "task": task,
        "query": query,
        "embedder": embedder,
        "other_embedder": other_embedder,
        "pooling": pooling,
    }
    _check(form, audit, asked)
    if audit:
        _audit(run, as_json)
        return
    assert out is not None
    if form == FORMATS[1]:
        _prompts(run, out, asked, as_json)
        return
    config = export.lora(run, out)
    if as_json:
        say_json({"out": str(out), "config": config})
        return
    base = config["base_model_name_or_path"]
    say(
        f"LoRA of rank {config['r']} for {base} is in {out}. peft.PeftModel.from_pretrained loads it."
    )


def _check(form: str, audit: bool, asked: Mapping[str, object]) -> None:
    """Have requests be of something, and nothing else. `Raises:` ConfigError."""
    from graftlab.errors import Argument, ConfigError, Place

    given = [name for name, value in asked.items() if value]
    if form == FORMATS[1] and not audit:
        if not asked["input"]:
            said = "requests of what? Vectors, texts or rows are wanted."
            place = Place(argument=Argument("input"))
            raise ConfigError(said, place=place, kind="missing")
    elif given:
        place = Place(argument=Argument(given[0], asked[given[0]]))
        said = "it is for requests."
        remedy = ("Give ", Argument("format", FORMATS[1]), ", or leave it out.")
        raise ConfigError(said, remedy, place=place, kind="conflict")


def _prompts(run: Path, out: Path, asked: Mapping[str, Any], as_json: bool) -> None:
    from graftlab.commands import _sources
    from graftlab.inference import Inputs, Reading
    from graftlab.release import prompt_embeds

    reading = Reading(asked["query"], asked["embedder"], asked["other_embedder"], asked["pooling"])
    source = _sources.found(asked["input"])
    written = prompt_embeds.export(run, out, Inputs(source, asked["task"], reading))
    if as_json:
        say_json({"out": str(out), **written._asdict()})
        return
    lora = f" --enable-lora --lora-modules {written.model}={out / prompt_embeds.LORA}"
    say(
        f"{written.requests} requests are in {out / prompt_embeds.REQUESTS}, for\n"
        f"  vllm serve {written.llm} --enable-prompt-embeds{lora if written.lora else ''}"
    )


def _audit(folder: Path, as_json: bool) -> None:
    from graftlab.commands._options import aligned
    from graftlab.contracts import read_notes
    from graftlab.release import export

    found = export.audit(folder)
    if as_json:
        say_json(found)
        return
    say(aligned([(name, f"{size:>13,} bytes") for name, size in found["files"].items()]))
    for row in found["groups"]:
        say(
            f"{row['file']}: {row['name']}, {row['tensors']} tensors of {row['dtype']}, "
            f"{row['bytes']:,} bytes, {row['share']:.1%}"
        )
    for note in read_notes(found["notes"]):
        say(f"warning: {note}")
