"""The language model that an adapter was trained on: named so that the same one can be had again."""

from collections.abc import Mapping
from typing import Any

from graftlab.backbones import decoder
from graftlab.contracts import Backbone, Problem
from graftlab.errors import ModelError

QUANTIZED = ("bits", "type", "double", "compute_dtype")
"""What of a backbone's record of its quantization was asked for."""


def named(backbone: Backbone) -> dict[str, Any]:
    """Return where a backbone's weights are, their hashes, and how they are held."""
    record, model = backbone.record, backbone.model
    held: Mapping[str, object] | None = record.get("quantization")
    return {
        "model": record.get("source"),
        "revision": record.get("revision"),
        "sha256": dict(record.get("sha256") or {}),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": {name: held[name] for name in QUANTIZED} if held else None,
    }


def reopened(llm: Mapping[str, Any]) -> Any:
    """Return the model that was named, frozen and in eval mode.

    Raises:
        ModelError: it cannot be found, or its weights are others.
    """
    section = decoder.Config.model_validate(
        {key: value for key, value in llm.items() if key != "sha256"}
    )
    found = decoder.load(section, Problem("tokens"), seed=0)
    check(llm, found)
    return found.model


def check(llm: Mapping[str, Any], backbone: Backbone) -> None:
    """Refuse another model than the one that was named. `Raises:` ModelError."""
    now = dict(backbone.record.get("sha256") or {})
    if llm["sha256"] != now:
        raise ModelError(
            f"the adapter was trained on {llm['model']} with the weights {llm['sha256']}, and "
            f"{backbone.record.get('source')} has {now}. Put those weights back, or name them in the config."
        )
