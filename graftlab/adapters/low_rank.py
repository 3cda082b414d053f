"""Adapters of the form W + s B A: their change of the weights, and the same change as plain LoRA.

PiSSA and OLoRA start from a part of W itself, W = W_res + s B0 A0, and freeze W_res. The change of the
untouched W is then s (B A - B0 A0), a plain LoRA of rank 2 R. A0 and B0 are kept beside the layer.
"""

# Shapes: I in features, O out features, R rank.

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from graftlab.adapters import attachment, files
from graftlab.adapters.attachment import ADAPTER, PREFIX
from graftlab.adapters.fields import LowRank, whole
from graftlab.adapters.files import INITIAL_A, INITIAL_B
from graftlab.contracts import Attached, Backbone, Note, Setting
from graftlab.errors import ConfigError, ModelError
from graftlab.weights import surgery

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora.dora import DoraLinearLayer
    from torch import Tensor, nn

log = logging.getLogger("graftlab")

RESIDUAL = ("pissa", "olora")
"""Values of peft's `init_lora_weights` that change the frozen weights."""
ORIGINALS = "graftlab_originals"
"""The model's attribute that holds the untouched weights by layer, on the CPU and in no state dict."""


class Pair(Protocol):
    """What is used of one of PEFT's LoRA layers."""

    in_features: int
    lora_A: "Mapping[str, nn.Linear]"  # noqa: N815  (PEFT's names)
    lora_B: "Mapping[str, nn.Linear]"  # noqa: N815
    lora_magnitude_vector: "Mapping[str, DoraLinearLayer]"
    scaling: Mapping[str, float]
    initial_A: "Tensor"  # noqa: N815
    """A0 and B0, where `keep_initial` has put them."""
    initial_B: "Tensor"  # noqa: N815

    def get_base_layer(self) -> "nn.Module": ...
    def register_buffer(self, name: str, tensor: "Tensor | None") -> None: ...


def fields(backbone: Backbone, config: LowRank, init: object) -> dict[str, object]:
    """Return the fields of peft's `LoraConfig` that a run file sets."""
    return {
        "r": config.rank,
        "lora_alpha": whole(config.alpha),
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "init_lora_weights": init,
        "target_modules": attachment.resolve(backbone, config.targets, config.rank),
        **attachment.common_fields(backbone),
    }


def attach(backbone: Backbone, config: LowRank, setting: Setting, **fixed: object) -> Attached:
    """Return the frozen backbone with A and B on its target layers; `fixed` are further peft fields.

    Raises:
        ConfigError: no layer matches, or the rank is larger than one of them.
        ModelError: `start_from` holds no fitting adapter.
    """
    from peft import LoraConfig

    peft_config = attachment.make_config(
        LoraConfig, fields(backbone, config, True) | fixed, config.peft
    )
    if peft_config.init_lora_weights in RESIDUAL:
        model = _attach_residual(backbone, peft_config, setting, bool(config.start_from))
    else:
        model = attachment.attach(backbone, peft_config, setting.seed)
    if config.start_from is not None and setting.restored is None:
        begin(model, backbone, config)
    return Attached(model, rates=rates(model, config), computed=computed(model))


def rates(model: "nn.Module", config: LowRank) -> dict[str, float]:
    """Return LoRA+'s learning-rate multiplier for every B."""
    if config.lora_plus_ratio == 1:
        return {}
    return {n: config.lora_plus_ratio for n, _ in model.named_parameters() if ".lora_B." in n}


def computed(model: "PeftModel") -> tuple[str, ...]:
    """Return the frozen tensors that a resumed run reads back: W_res, A0, B0, and the first head."""
    layers = lora_layers(model) if hasattr(model, ORIGINALS) else {}
    kept = ("base_layer.weight", INITIAL_A, INITIAL_B)
    return (
        *attachment.random_frozen(model),
        *(f"{PREFIX}{layer}.{tensor}" for layer in layers for tensor in kept),
    )


def lora_layers(model: "PeftModel") -> "dict[str, Pair]":
    """Return PEFT's LoRA layers by the name that they have in the backbone."""
    from peft.tuners.lora import LoraLayer

    found = model.named_modules()
    layers = {n.removeprefix(PREFIX): m for n, m in found if isinstance(m, LoraLayer)}
    return cast("dict[str, Pair]", layers)


def _attach_residual(
    backbone: Backbone, config: "LoraConfig", setting: Setting, given: bool
) -> "PeftModel":
    """Attach PiSSA or OLoRA. What is read back (or `given`) is not computed again."""
    init, layers = config.init_lora_weights, sorted(config.target_modules or ())
    modules = {name: backbone.model.get_submodule(name) for name in layers}
    transposed = [name for name, module in modules.items() if surgery.is_conv1d(module)]
    if init == "olora" and transposed:
        raise ConfigError(
            f"method.init olora does not fit {transposed[0]}: peft's OLoRA takes its weight, stored "
            "(in, out), for (out, in). Choose pissa, or other method.targets."
        )
    originals = _copies(backbone, layers)
    if given or setting.restored is not None:
        config.init_lora_weights = True
    model = attachment.attach(backbone, config, setting.seed)
    config.init_lora_weights = init
    keep_initial(model, originals)
    return model


def _copies(backbone: Backbone, layers: list[str]) -> "dict[str, Tensor]":
    weights = {n: backbone.model.get_submodule(n).get_parameter("weight") for n in layers}
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


def keep_initial(model: "PeftModel", originals: "Mapping[str, Tensor]") -> None:
    """Keep A and B as they are now beside each layer, and the untouched weights to turn off exactly.

    Adding s B0 A0 back to W_res would be off by a rounding error; the copies cost the memory of the
    adapted weights once, on the CPU.
    """
    for layer in lora_layers(model).values():
        layer.register_buffer(INITIAL_A, layer.lora_A[ADAPTER].weight.detach().clone())
        layer.register_buffer(INITIAL_B, layer.lora_B[ADAPTER].weight.detach().clone())
    setattr(model, ORIGINALS, dict(originals))


def begin(model: "PeftModel", backbone: Backbone, config: LowRank) -> None:
    """Set the weights to those of the run in `config.start_from`.

    Raises:
        ModelError: it is another method's or another backbone's, or has other shapes.
    """
    assert config.start_from is not None
    folder = files.find_start(config.start_from)
    if not files.check_whole(folder):
        log.warning("%s", Note.of("no_manifest", folder=str(folder)))
    files.check_base(config.start_from, backbone)
    if hasattr(model, ORIGINALS) != (folder / files.INITIAL).is_file():
        raise ModelError(
            f"method.start_from: {folder} was trained from another start (pissa, olora or neither) "
            "than this run's. Begin from a run with the same method and init.",
            kind="other_start",
        )
    files.begin_from(model, config.start_from, backbone.head, config.start_head)
    if hasattr(model, ORIGINALS):
        put_initial(model, files.read(folder, files.INITIAL)[1], str(folder))


def put_initial(model: "PeftModel", initial: "Mapping[str, Tensor]", what: str) -> None:
    """Set A0 and B0, and W_res = W - s B0 A0 with the operations that peft computes it with.

    Raises:
        ModelError: names or shapes differ.
    """
    import torch

    if difference := files.differ(initial_tensors(model), initial):
        raise ModelError(f"{what} does not fit this backbone: {difference}.", kind="misfit")
    originals = getattr(model, ORIGINALS)
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            a_RI, b_OR = layer.initial_A, layer.initial_B
            a_RI.copy_(initial[f"{name}.{INITIAL_A}"])
            b_OR.copy_(initial[f"{name}.{INITIAL_B}"])
            weight = layer.get_base_layer().weight
            original = originals[name].to(weight.device)
            part = layer.scaling[ADAPTER] * b_OR @ a_RI
            part = part.T if surgery.is_conv1d(layer.get_base_layer()) else part
            weight.data = (original.float() - part).to(weight.dtype)


def initial_tensors(model: "PeftModel") -> "dict[str, Tensor]":
    """Return A0 and B0 of each layer, on the CPU."""
    return {
        f"{name}.{key}": getattr(layer, key).detach().cpu().clone().contiguous()
        for name, layer in lora_layers(model).items()
        for key in (INITIAL_A, INITIAL_B)
    }


def save(model: "PeftModel", folder: Path) -> None:
    """Write the adapter, and A0 and B0 where the frozen weights were changed."""
    from safetensors.torch import save_file

    files.save(model, folder)
    if hasattr(model, ORIGINALS):
        save_file(initial_tensors(model), folder / files.INITIAL, metadata={"format": "pt"})


def load(backbone: Backbone, folder: Path) -> "PeftModel":
    """Return the backbone with the saved adapter, and W_res where the frozen weights were changed.

    Raises:
        ModelError: the files are missing or damaged, or belong to another backbone.
    """
    if not (folder / files.INITIAL).is_file():
        return files.load(backbone, folder)
    initial = files.read(folder, files.INITIAL)[1]
    layers = sorted({name.rpartition(".")[0] for name in initial})
    try:
        originals = _copies(backbone, layers)
    except AttributeError as error:
        raise ModelError(
            f"the adapter in {folder} does not fit this backbone: {error}", kind="misfit"
        ) from error
    model = files.load(backbone, folder)
    keep_initial(model, originals)
    put_initial(model, initial, str(folder / files.INITIAL))
    return model


@contextlib.contextmanager
def off(model: "PeftModel") -> Iterator[None]:
    """Let the model be the backbone for the time of a `with` block, untouched weights included."""
    originals = getattr(model, ORIGINALS, {})
    layers = lora_layers(model) if originals else {}
    weights = {name: layer.get_base_layer().weight for name, layer in layers.items()}
    changed = {name: weight.data for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.data = originals[name].to(weight.device, weight.dtype)
    try:
        with attachment.off(model):
            yield
    finally:
        for name, weight in weights.items():
            weight.data = changed[name]


def merge(model: "PeftModel") -> "nn.Module":
    """Return the plain model with the adapter folded into its weights. The adapter is gone."""
    return attachment.merge(model)


def deltas(model: "PeftModel") -> "Iterator[tuple[str, tuple[Tensor, Tensor]]]":
    """Yield the name of each adapted weight and its change as two exact factors, first @ second.

    Their product has the layout of the weight itself: (O, I), or (I, O) for transformers' Conv1D.
    """
    for name, layer in lora_layers(model).items():
        up, down = factors(layer)
        transposed = surgery.is_conv1d(layer.get_base_layer())
        yield f"{name}.weight", (down.T, up.T) if transposed else (up, down)


def factors(layer: Pair) -> "tuple[Tensor, Tensor]":
    """Return B (O, R), scaled, and A (R, I); of rank 2 R where the frozen weights were changed."""
    import torch

    a_RI, b_OR = layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach()
    if hasattr(layer, INITIAL_A):
        a_RI = torch.cat([a_RI, layer.initial_A], dim=0)
        b_OR = torch.cat([b_OR, -layer.initial_B], dim=1)
    return b_OR * layer.scaling[ADAPTER], a_RI


def to_lora(model: "PeftModel") -> "tuple[dict[str, object], dict[str, Tensor]]":
    """Return the config and the weights of a plain LoRA adapter for the untouched backbone."""
    import torch

    config, weights = files.config_dict(model), files.tensors(model)
    config["init_lora_weights"] = True
    config["eva_config"] = None
    if not hasattr(model, ORIGINALS):
        return config, weights
    for name, layer in lora_layers(model).items():
        a, b = (f"{PREFIX}{name}.lora_{key}.weight" for key in "AB")
        weights[a] = torch.cat([weights[a], layer.initial_A.cpu()], dim=0)
        weights[b] = torch.cat([weights[b], -layer.initial_B.cpu()], dim=1)
    # alpha / R = (2 alpha) / (2 R), and alpha / sqrt(R) = (sqrt(2) alpha) / sqrt(2 R)
    scale = 2**0.5 if config["use_rslora"] else 2
    config["r"], config["lora_alpha"] = 2 * config["r"], whole(scale * config["lora_alpha"])
    config["rank_pattern"] = {k: 2 * v for k, v in (config["rank_pattern"] or {}).items()}
    config["alpha_pattern"] = {k: scale * v for k, v in (config["alpha_pattern"] or {}).items()}
    return config, weights
