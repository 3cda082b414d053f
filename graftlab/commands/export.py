"""Write a run's adapter in a form that other programs load."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json, RunFolder


def command(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    form: Annotated[
        str, typer.Option("--format", help="lora: plain PEFT LoRA.", metavar="FORMAT")
    ] = "lora",
    as_json: Json = False,
) -> None:
    """Write a run's adapter as plain PEFT LoRA, which needs no graftlab to be loaded."""
    from graftlab import export
    from graftlab.commands._report import print_json
    from graftlab.errors import ConfigError, unknown

    if form != "lora":
        raise ConfigError(unknown("export format", form, ["lora"]))
    config = export.lora(run, out)
    if as_json:
        print_json({"out": str(out), "config": config})
        return
    base = config["base_model_name_or_path"]
    print(
        f"LoRA of rank {config['r']} for {base} is in {out}. peft.PeftModel.from_pretrained loads it."
    )
