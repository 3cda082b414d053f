"""Write a run's adapter in a form that other programs load."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json, RunFolder
from graftlab.terminal import say, say_json


def command(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="A new folder.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="lora: plain PEFT LoRA.", metavar="FORMAT")
    ] = "lora",
    audit: Annotated[
        bool, typer.Option("--audit", help="Say what takes the room in the adapter; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run's adapter as plain PEFT LoRA, which needs no graftlab to be loaded."""
    from graftlab.errors import ConfigError, unknown
    from graftlab.release import export

    if audit == (out is not None):
        raise ConfigError("give either --out DIR, or --audit.")
    if audit:
        _audit(run, as_json)
        return
    assert out is not None
    if form != "lora":
        raise ConfigError(unknown("export format", form, ["lora"]))
    config = export.lora(run, out)
    if as_json:
        say_json({"out": str(out), "config": config})
        return
    base = config["base_model_name_or_path"]
    say(
        f"LoRA of rank {config['r']} for {base} is in {out}. peft.PeftModel.from_pretrained loads it."
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
