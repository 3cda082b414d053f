"""PiFi: one frozen layer of a large language model is plugged in between a small encoder and its head.

    p = pool(encoder(text))    logits = head(P_out layer(P_in p))    head = Linear, Dropout, GELU, Linear

Kim et al., 2025, arXiv 2506.07424. P_in and P_out have no bias, nothing goes around the layer, and the
encoder trains with them. `plug` puts a control in the layer's place; `none` without projections is the
encoder with the same head, so that only the plug differs.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Attached, Backbone, Batch, Setting
from graftlab.errors import ConfigError, ModelError
from graftlab.methods.pifi import donors
from graftlab.methods.pifi.config import Config, numbers
from graftlab.weights import pretrained

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graftlab.methods.pifi.model import PifiForSequenceClassification

STARTS_UNCHANGED = False  # P_in and P_out are drawn at random, and the head is another
FREEZES_BACKBONE = False  # the encoder trains, as in the paper; `encoder: lora` or `frozen` keep it
MERGEABLE = False
NOT_MERGED = "a layer of another model stands behind the encoder, which is no change of a weight"
TURNS_OFF = False  # the encoder has moved, and the head is made for what the layer puts out
RELOADS_EXACTLY = True
REGISTERS = f"{__name__}.model"
BACKBONES = ("encoder", "tiny")  # the first token of a decoder has seen no other
NOT_ARCHITECTURES = (
    "funnel",  # shortens the sequence: the mask no longer fits
    "squeezebert",  # cannot do without its pooler
)


def example(folder: Path) -> Config:
    """Return a section with a small donor, written into `folder`: for `graftlab.testing`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_attention_heads": 4,
        "vocab_size": 30,
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(num_hidden_layers=3, num_key_value_heads=2, initializer_range=0.2, **sizes)
        )
    model.save_pretrained(folder)
    return Config(llm=str(folder), layer=1)


def check(
    config: Config, backbone_kind: str, model_type: str | None, gradient_checkpointing: bool
) -> list[str]:
    """Return why the donor cannot be one, before anything is read but its config.json."""
    if config.llm is None:
        return []
    try:
        kind, folder = pretrained.kind_of(config.llm), donors.local(config.llm)
        known = pretrained.read_config(folder) if folder else {}
    except ModelError as error:
        return [f"method.llm: {error}"]
    if kind not in (None, "decoder"):
        what = "made on the spot, and has no files" if kind == "tiny" else f"of kind {kind}"
        return [f"method.llm {config.llm!r} is {what}; a decoder such as llama3.1 is wanted."]
    count = known.get("num_hidden_layers") or known.get("n_layer") or 0
    beyond = [number for number in numbers(config.layer) if 0 < count <= number]
    return [f"method.layer {n}: {config.llm} has layers 0 to {count - 1}." for n in beyond]


def wants_layer(config: Config) -> bool:
    """Return whether a layer is still to be chosen (`layer: auto`), before `attach`."""
    return config.layer == "auto"


def with_layer(config: Config, layer: int) -> Config:
    """Return the config with the layer that was chosen."""
    return config.model_copy(update={"layer": layer})


def vectors(backbone: Backbone, batch: Batch, config: Config) -> "Tensor":
    """Return (B, d) what the encoder as it is now would plug in, for `graftlab select`."""
    from graftlab.methods.pifi.model import padded, pool

    encoder: Any = backbone.model.base_model
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if config.pooling == "mean_with_padding":
        inputs = padded(inputs, config.pad_to, encoder.config.pad_token_id or 0)
    return pool(encoder(**inputs).last_hidden_state, inputs["attention_mask"], config.pooling)


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the encoder with the layer plugged in and a new head.

    Raises:
        ConfigError: the layer is still to be chosen, the backbone reads no text, or LoRA fits none of it.
        ModelError: the donor cannot be read, or has no such layer.
    """
    from graftlab.methods.pifi import assembly

    restored = (setting.restored or {}).get("donor")
    if wants_layer(config) and restored is None:
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


@contextlib.contextmanager
def off(model: "nn.Module") -> Iterator[None]:
    """Refuse: encoder and head are not what they were.

    Raises:
        ModelError: always.
    """
    raise ModelError(
        "pifi cannot be turned off: the head is made for what the layer puts out. Train with plug none "
        "and projections false to compare."
    )
    yield
