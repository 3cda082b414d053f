"""PiFi: one frozen layer of a large language model is plugged in between a small encoder and its head.

    p = pool(encoder(text))    logits = head(P_out layer(P_in p))    head = Linear, Dropout, GELU, Linear

Kim et al., 2025, arXiv 2506.07424. P_in and P_out have no bias, nothing goes around the layer, and the
encoder trains with them. `plug` puts a control in the layer's place; `none` without projections is the
encoder with the same head, so that only the plug differs.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Attached, Backbone, Batch, Excused, LayerChoice, Promises, Setting
from graftlab.errors import (
    ConfigError,
    Fault,
    ModelError,
    wrong,
)
from graftlab.methods.pifi import donors
from graftlab.methods.pifi.config import Config, numbers
from graftlab.weights import pretrained

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graftlab.methods.pifi.model import PifiForSequenceClassification

PROMISES = Promises(
    starts_unchanged=Excused("the projections are drawn at random, and the head is another"),
    freezes_backbone=Excused(
        "the encoder trains with the projections, as in the paper; `encoder: lora` or `frozen` keep it"
    ),
    mergeable=Excused(
        "a layer of another model stands behind the encoder, which is no change of a weight"
    ),
    turns_off=Excused(
        "the encoder has moved, and the head is made for what the layer puts out; train with plug none and "
        "projections false to compare"
    ),
    not_backbones={
        "decoder": "its first token has seen no other",
        "vision": "images have no words",
    },
    not_problems={"tokens": "behind its layer stands a head for classes, and no language head"},
    not_architectures={
        "funnel": "it shortens the sequence, and the mask no longer fits",
        "squeezebert": "it cannot do without its pooler",
    },
    usual_rates=(1e-6, 5e-4),  # the encoder trains too, and mostly as in full fine-tuning
)
REGISTERS = f"{__name__}.model"


def check(
    config: Config, backbone_kind: str, model_type: str | None, gradient_checkpointing: bool
) -> list[Fault]:
    """Return why the donor cannot be one, before anything is read but its config.json."""
    if config.llm is None:
        return []
    try:
        kind, folder = pretrained.kind_of(config.llm), donors.local(config.llm)
        known = pretrained.read_config(folder) if folder else {}
    except ModelError as error:
        return [wrong("llm", f"method.llm: {error}", kind="unreadable")]
    if kind not in (None, "decoder"):
        what = "made on the spot, and has no files" if kind == "tiny" else f"of kind {kind}"
        said = f"method.llm {config.llm!r} is {what}; a decoder such as llama3.1 is wanted."
        return [wrong("llm", said, kind="conflict", given=config.llm)]
    count = known.get("num_hidden_layers") or known.get("n_layer") or 0
    beyond = [number for number in numbers(config.layer) if 0 < count <= number]
    allowed = f"0 to {count - 1}"
    return [
        wrong(
            "layer",
            f"method.layer {number}: {config.llm} has layers {allowed}.",
            kind="not_allowed",
            given=number,
            allowed=allowed,
        )
        for number in beyond
    ]


def _wanted(config: Config) -> bool:
    return config.layer == "auto"


def _chosen(config: Config, layer: int) -> Config:
    return config.model_copy(update={"layer": layer})


def _facts(config: Config) -> list[str | int | None]:
    return [config.pooling, config.pad_to]


def _vectors(backbone: Backbone, batch: Batch, config: Config) -> "Tensor":
    """Return (B, d) what the encoder as it is now would plug in."""
    from graftlab.methods.pifi.model import padded, pool

    encoder: Any = backbone.model.base_model
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if config.pooling == "mean_with_padding":
        inputs = padded(inputs, config.pad_to, encoder.config.pad_token_id or 0)
    return pool(encoder(**inputs).last_hidden_state, inputs["attention_mask"], config.pooling)


LAYER = LayerChoice(_wanted, _chosen, _vectors, _facts)


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the encoder with the layer plugged in and a new head.

    Raises:
        ConfigError: the layer is still to be chosen, the backbone reads no text, or LoRA fits none of it.
        ModelError: the donor cannot be read, or has no such layer.
    """
    from graftlab.methods.pifi import assembly

    restored = (setting.restored or {}).get("donor")
    if _wanted(config) and restored is None:
        raise ConfigError(
            "method.layer is auto, and no layer has been chosen. Choose one with `graftlab select`, or "
            "give its number."
        )
    plugged = assembly.plugged(config, setting.seed, restored)
    model = assembly.build(backbone, config, plugged, setting.seed)
    return Attached(model, record={"donor": plugged.donor and asdict(plugged.donor)})


def save(model: "PifiForSequenceClassification", folder: Path) -> None:
    """Write all weights but the frozen layer's, and the config that names it."""
    from graftlab.methods.pifi import assembly

    assembly.save(model, folder)


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the encoder with the saved weights and the layer, whose hash is checked.

    Raises:
        ModelError: a file is missing or damaged, belongs to another backbone, or the donor has changed.
    """
    from graftlab.methods.pifi import assembly

    return assembly.load(backbone, config, folder)
