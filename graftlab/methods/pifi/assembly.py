"""An encoder, a donor's layers and a head put together, saved, and put together again."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from graftlab import adapters
from graftlab.adapters import inner_lora
from graftlab.adapters.files import differ
from graftlab.contracts import Backbone
from graftlab.errors import ConfigError, ModelError
from graftlab.methods.pifi import donors
from graftlab.methods.pifi.config import Config
from graftlab.methods.pifi.model import PifiConfig, PifiForSequenceClassification, without_pooler
from graftlab.rundir import files
from graftlab.seeds import mix
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
COPIED = ("id2label", "label2id", "problem_type", "pad_token_id")  # of the encoder's config


class Plugged(NamedTuple):
    """What stands between P_in and P_out."""

    size: int | None
    """The width there; None: no projections."""
    donor: donors.Donor | None = None
    layers: list[Any] | None = None


def plugged(config: Config, seed: int, restored: Mapping[str, Any] | None) -> Plugged:
    """Return what is plugged in; of a `restored` donor the same layers, and their hashes are checked."""
    if config.llm is None:
        return Plugged(None)
    checkpoint = donors.open_model(config.llm, config.revision)
    if config.plug not in ("layer", "random"):
        return Plugged(checkpoint.hidden_size)
    pooled = config.plug_mode == "pooled"
    if restored is not None:
        donor = donors.Donor(**restored)
        return Plugged(checkpoint.hidden_size, donor, donors.read(donor, pooled))
    wanted = donors.Donor(
        model=config.llm,
        revision=config.revision,
        layers=_numbers(config, checkpoint.num_layers),
        sha256=[],
        dtype=config.dtype,
        seed=mix(seed, "plug") if config.plug == "random" else None,
        config=checkpoint.config.to_dict() if config.train_layer else None,
    )
    return Plugged(checkpoint.hidden_size, *donors.choose(checkpoint, wanted, pooled))


def _numbers(config: Config, num_layers: int) -> list[int]:
    layer = num_layers - 1 if config.layer == "last" else config.layer
    assert layer != "auto"
    return list(layer) if isinstance(layer, tuple) else [int(layer)]


def build(
    backbone: Backbone, config: Config, plugged: Plugged, seed: int
) -> PifiForSequenceClassification:
    """Return the model, on the encoder's device, with what trains marked and in float32.

    P_in, P_out and LoRA are drawn apart from the head: that one begins alike whatever is plugged in.

    Raises:
        ConfigError: the backbone reads no text, puts out tokens or takes fewer than `pad_to`, or LoRA
            fits none of its layers.
    """
    encoder = _encoder(backbone, config)
    trains = config.encoder == "lora"
    lora = inner_lora.fields(encoder, "encoder", config.lora) if trains else None
    own: dict[str, Any] = {name: getattr(backbone.model.config, name, None) for name in COPIED}
    # without it transformers unsets the encoder's kernel, and then its mask is lost without a word
    own["attn_implementation"] = encoder.config._attn_implementation
    described = PifiConfig(
        encoder_config=encoder.config,
        plug=config.plug,
        plug_size=plugged.size,
        plug_mode=config.plug_mode,
        pooling=config.pooling,
        pad_to=config.pad_to,
        residual=config.residual,
        donor=asdict(plugged.donor) if plugged.donor else None,
        train_layer=config.train_layer,
        lora=lora,
        head_dropout=config.head_dropout,
        **own,
    )
    with adapters.drawing(seed):
        model = PifiForSequenceClassification(described, encoder)
    with adapters.drawing(mix(seed, "head")):
        for linear in (module for module in model.classifier if isinstance(module, nn.Linear)):
            linear.reset_parameters()
    for part in (model.project_in, model.project_out, model.classifier):
        if part is not None:
            part.to(encoder.device)
    model.plug_in(plugged.layers)
    surgery.train_in_float32(model)
    return model


def _encoder(backbone: Backbone, config: Config) -> Any:
    """Return the backbone without its head, with what trains of it marked."""
    model: nn.Module = backbone.model
    if model.main_input_name != "input_ids" or not backbone.head:
        what = "puts out tokens" if model.main_input_name == "input_ids" else "reads images"
        raise ConfigError(
            f"method pifi wants an encoder of texts with a head, but the backbone {what}. Choose "
            f"another method, such as lora."
        )
    if config.pad_to and backbone.max_length and config.pad_to > backbone.max_length:
        raise ConfigError(
            f"method.pad_to is {config.pad_to}, but the backbone takes {backbone.max_length} tokens. Set "
            f"it to at most {backbone.max_length}."
        )
    encoder = without_pooler(model.base_model)
    if config.encoder == "full":
        encoder.float()
        for parameter in encoder.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    else:
        surgery.freeze(encoder)
    return encoder


def save(model: PifiForSequenceClassification, folder: Path) -> None:
    """Write the weights and the config as transformers would: the same bytes for the same values."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_weights(model), folder / WEIGHTS, metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.dtype = model.dtype
    model.config.save_pretrained(folder)


def _weights(model: PifiForSequenceClassification) -> "dict[str, Tensor]":
    """Return what is saved: all but the frozen layers."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in (model._keys_to_ignore_on_save or ())
    }


def load(backbone: Backbone, config: Config, folder: Path) -> PifiForSequenceClassification:
    """Return the backbone with what `save` wrote, in eval mode."""
    weights = files.read_weights(folder / WEIGHTS)
    try:
        saved = PifiConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"the model in {folder} cannot be read: {error}") from error
    donor = donors.Donor(**saved.donor) if saved.donor else None
    layers = None
    if donor:
        pooled = saved.plug_mode == "pooled"
        layers = donors.empty(donor, pooled) if saved.train_layer else donors.read(donor, pooled)
    model = build(backbone, config, Plugged(saved.plug_size, donor, layers), seed=0)
    if difference := differ(_weights(model), weights):
        raise ModelError(f"{folder / WEIGHTS} belongs to another backbone: {difference}.")
    model.load_state_dict(weights, strict=False)
    return model.eval()
