"""A run's adapter in a form that other programs load."""

import shutil
from pathlib import Path
from typing import Any

from graftlab import config, files, inference, runfile
from graftlab.adapters.files import write
from graftlab.errors import ConfigError, DiskError


def lora(run: Path, out: Path) -> dict[str, Any]:
    """Write the adapter of `run` as plain PEFT LoRA, loaded by peft, vLLM and others, and return its config.

    The folder holds adapter_config.json and adapter_model.safetensors; the head of a classifier is in it.
    It is written beside and moved into its place: whole, or not there.

    Raises:
        ConfigError: the method has no LoRA form, or `out` is there already.
        DiskError: `out` cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already and not empty. Choose another with --out.")
    found = inference.find(run)
    method = runfile.resolve(config.read(found.config), finished=True).method
    if not hasattr(method.module, "to_lora"):
        raise ConfigError(
            f"the method {method.name!r} has no LoRA form: what it learned is not, or not only, a "
            f"low-rank change of linear weights. Its adapter is in {found.adapter}."
        )
    adapted = inference.load(run, device="cpu")
    fields, tensors = method.module.to_lora(adapted.model)
    partial = out.with_name(out.name + files.PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        write(partial, fields, tensors)
        for path in partial.iterdir():
            files.sync(path)
        partial.replace(out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DiskError(f"{out} cannot be written: {error}. Choose another with --out.") from error
    written: dict[str, Any] = fields
    return written
