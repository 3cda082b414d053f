"""A run's adapter in a form that other programs load."""

import json
from pathlib import Path
from typing import Any

from graftlab import inference
from graftlab.errors import ConfigError


def lora(run: Path, out: Path) -> dict[str, Any]:
    """Write the adapter of `run` as plain PEFT LoRA, loaded by peft, vLLM and others, and return its config.

    The folder holds adapter_config.json and adapter_model.safetensors; the head of a classifier is in it.

    Raises:
        ConfigError: the method has no LoRA form, or `out` is there already.
    """
    from safetensors.torch import save_file

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already and not empty. Choose another with --out.")
    adapted = inference.load(run, device="cpu")
    method = adapted.file.method
    if not hasattr(method.module, "to_lora"):
        raise ConfigError(
            f"the method {method.name!r} has no LoRA form: what it learned is no low-rank change of "
            f"linear weights. Its adapter is in {adapted.run.adapter}."
        )
    fields, tensors = method.module.to_lora(adapted.model)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    (out / "adapter_config.json").write_text(text, encoding="utf-8")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = fields
    return config
