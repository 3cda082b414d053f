"""A decoder family cut down to one layer: transformers' own classes, built on the meta device.

Masks, rotary embeddings, sliding windows and position ids of a layer are computed by the model's own
`forward`, which knows its family: it is run on what is left of the model (`Shell`), up to the place
where the first layer would be called, and what it would have handed to the layer is caught there.
"""

import copy
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from graftlab.errors import ModelError

# Layers of these mix tokens without attention, whatever their other modules are called.
RECURRENT = re.compile(
    r"mamba|ssm\b|rwkv|deltanet|lightning|recurrent|retention|xlstm|shortconv", re.I
)

DECODERS_ONLY = "Choose a decoder, such as a Llama, Qwen, Mistral, Gemma, Falcon or GPT-2."
INITIALISED = "_is_hf_initialized"  # transformers' mark on tensors that it must not draw


class Skeleton(NamedTuple):
    """A decoder without weights."""

    model: PreTrainedModel
    """The module that owns the list of layers and calls them: mostly the base model itself."""
    path: str
    """Its layers' name in the base model: `layers`, `h`, `decoder.layers`."""

    @property
    def list_name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def layers(self) -> nn.ModuleList:
        return getattr(self.model, self.list_name)

    def around(self) -> list[tuple[str, nn.Module]]:
        """Return the model's other modules."""
        return [
            (k, m) for k, m in self.model._modules.items() if m is not None and k != self.list_name
        ]


class Called(Exception):
    """Ends a model's forward where it calls its first layer."""

    def __init__(
        self, hidden: Tensor, arguments: tuple[object, ...], named: dict[str, object]
    ) -> None:
        super().__init__()
        self.hidden, self.arguments, self.named = hidden, arguments, named


class Catch(nn.Module):
    """Stands in the place of the layers and tells what it was called with."""

    def forward(self, hidden_states: Tensor, *arguments: object, **named: object) -> Tensor:
        raise Called(hidden_states, arguments, named)


class Pass(nn.Module):
    """Stands for a layer before the one that is wanted."""

    def forward(self, hidden_states: Tensor, *arguments: object, **named: object) -> Tensor:
        return hidden_states


class Nothing(nn.Module):
    """Stands for an embedding whose rows have been added already."""

    def forward(self, *arguments: object, **named: object) -> Tensor:
        return torch.zeros(())


class Unread(nn.Module):
    """Stands for the query or key matrix that a single token does not need."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.new_zeros(*hidden.shape[:-1], self.out_features)


def build(config: PreTrainedConfig, where: str) -> Skeleton:
    """Return the skeleton of the decoder that a config describes.

    Raises:
        ModelError: it is no decoder, or not one whose layers stand in a list.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{where} is an encoder-decoder ({config.model_type}). {DECODERS_ONLY}")
    base = MODEL_MAPPING.get(type(config), None)
    if base is None or isinstance(base, tuple):
        raise ModelError(f"transformers has no plain model for {config.model_type} ({where})")
    with torch.device("meta"), no_init_weights():
        model = base(copy.deepcopy(config))
    _refuse_encoders(model, where)
    for name, module in model.named_modules():
        parent = model.get_submodule(name.rpartition(".")[0])
        if (
            isinstance(module, nn.ModuleList)
            and len(module) == config.num_hidden_layers
            and isinstance(parent, PreTrainedModel)
        ):
            skeleton = Skeleton(parent.eval(), name)
            for _, other in skeleton.around():
                compute_buffers(parent, other)
            _try(skeleton, where)
            return skeleton
    raise ModelError(
        f"{where} ({config.model_type}) has no list of {config.num_hidden_layers} layers that its "
        f"model calls itself: either it is an encoder, or of a layout that is not known here. "
        f"{DECODERS_ONLY}"
    )


def _refuse_encoders(model: PreTrainedModel, where: str) -> None:
    for module in model.modules():
        if getattr(module, "is_causal", True) is False:
            raise ModelError(
                f"{where} is an encoder ({model.config.model_type}): its tokens see those "
                f"that follow. {DECODERS_ONLY}"
            )


def _try(skeleton: Skeleton, where: str) -> None:
    """Raise ModelError if the model's forward does not lead to its layers as other decoders' do."""
    hidden = torch.zeros(1, 2, skeleton.model.config.hidden_size)
    try:
        call(shell(skeleton, 0), hidden, None)
    except Exception as error:
        raise ModelError(
            f"{where} ({skeleton.model.config.model_type}) is of a layout that is not known here "
            f"({type(error).__name__}: {error}). {DECODERS_ONLY}"
        ) from error


def refuse_without_attention(skeleton: Skeleton, index: int, where: str) -> None:
    """Raise ModelError if a layer mixes tokens by anything else than softmax attention."""
    if (other := _instead_of_attention(skeleton, index)) is None:
        return
    indices = range(len(skeleton.layers))
    known = [str(i) for i in indices if _instead_of_attention(skeleton, i) is None]
    advice = f"Layers with attention: {', '.join(known)}." if known else DECODERS_ONLY
    raise ModelError(
        f"layer {index} of {where} is no attention but {other}. {advice}", kind="no_attention"
    )


def _instead_of_attention(skeleton: Skeleton, index: int) -> str | None:
    """Return what a layer has in the place of softmax attention, or beside it; None if nothing."""
    layer = skeleton.layers[index]
    kinds = [type(module).__name__ for module in layer.modules()]
    names = [name for name, _ in layer.named_modules()]
    if recurrent := [kind for kind in (*kinds, *names) if RECURRENT.search(kind)]:
        return recurrent[0]
    return None if any("Att" in kind for kind in kinds) else kinds[0]


def block(skeleton: Skeleton, index: int, pooled: bool) -> nn.Module:
    """Return a layer on the meta device; with `pooled`, without its query and key matrices."""
    layer = copy.deepcopy(skeleton.layers[index])
    if pooled:
        for module in list(layer.modules()):
            for name in ("q_proj", "k_proj"):
                if isinstance(linear := getattr(module, name, None), nn.Linear):
                    setattr(module, name, Unread(linear.out_features))
    return layer


def shell(skeleton: Skeleton, index: int) -> PreTrainedModel:
    """Return what stands around layer `index`, without weights, a `Catch` in the layer's place.

    Modules that have buffers only (rotary embeddings) are kept.
    """
    stand_ins = {
        name: (Nothing() if isinstance(module, nn.Embedding) else nn.Identity())
        for name, module in skeleton.around()
        if any(True for _ in module.parameters())
    }
    kept = {name: copy.deepcopy(module) for name, module in skeleton.around()}
    return _with_modules(skeleton, kept | stand_ins, index)


def front(skeleton: Skeleton) -> PreTrainedModel:
    """Return what stands before layer 0, on the meta device, with an embedding that has no rows."""
    kept = {name: copy.deepcopy(module) for name, module in skeleton.around()}
    model = _with_modules(skeleton, kept, 0)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    columns = embedding.weight.shape[1]
    embedding.weight = nn.Parameter(torch.empty(0, columns), requires_grad=False)
    embedding.padding_idx = None  # rows are numbered anew
    return model


def _with_modules(skeleton: Skeleton, modules: dict[str, nn.Module], index: int) -> PreTrainedModel:
    """Return a copy of the model with these modules, a `Catch` as layer `index` and none behind it."""
    model = copy.copy(skeleton.model)
    # Masks and positions differ between layers only where config says the kinds of the layers.
    before = index if getattr(model.config, "layer_types", None) else 0
    layers = nn.ModuleList([*(Pass() for _ in range(before)), Catch()])
    model.__dict__ |= {"_parameters": {}, "_buffers": {}}
    model._modules = {**modules, skeleton.list_name: layers}
    return model


def compute_buffers(model: PreTrainedModel, module: nn.Module) -> None:
    """Compute the buffers of `module` that no checkpoint holds, as `model`'s class does after loading."""
    for part in module.modules():
        missing = {
            k: buffer
            for k, buffer in part._buffers.items()
            if buffer is not None and buffer.is_meta
        }
        part._buffers |= {
            k: torch.empty_like(buffer, device="cpu") for k, buffer in missing.items()
        }
        if missing:
            for parameter in part.parameters():
                setattr(parameter, INITIALISED, True)
            model._init_weights(part)


def call(model: PreTrainedModel, hidden: Tensor, attention_mask: Tensor | None) -> Called:
    """Run what stands around a layer and return what the layer would be called with."""
    try:
        model(inputs_embeds=hidden, attention_mask=attention_mask, use_cache=False)
    except Called as called:
        return called.with_traceback(None)  # its frames would keep the layer until a collection
    raise AssertionError(f"{type(model).__name__} did not call its layer")
