"""A language model and an adapter put together, saved, and put together again."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graftlab import adapters
from graftlab.adapters import inner_lora
from graftlab.adapters.files import differ
from graftlab.contracts import Backbone, Batch, Served
from graftlab.errors import ModelError
from graftlab.methods.elm import language_model
from graftlab.methods.elm.adapter import gain_like
from graftlab.methods.elm.config import Config
from graftlab.methods.elm.model import ElmConfig, ElmForCausalLM, lora_of
from graftlab.seeds import mix
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"


def described(backbone: Backbone, config: Config, vectors: Mapping[str, Any]) -> ElmConfig:
    """Return the config of the model that an adapter of a run file makes of a backbone."""
    embeddings: Any = backbone.model.get_input_embeddings()  # type: ignore[operator]
    return ElmConfig(
        llm=language_model.named(backbone),
        vectors=dict(vectors),
        hidden=config.hidden,
        token_width=embeddings.weight.shape[1],
        dropout=config.dropout,
        residual=config.residual,
        train_residual=config.train_residual,
        lora=inner_lora.fields(backbone.model, "decoder", config.lora)
        if config.llm == "lora"
        else None,
    )


def build(backbone: Backbone, described: ElmConfig, seed: int = 0) -> ElmForCausalLM:
    """Return the model, on the LLM's device: the adapter and LoRA train in float32, and nothing else does."""
    llm: Any = backbone.model
    surgery.freeze(llm)
    device = next(llm.parameters()).device
    with adapters.drawing(mix(seed, "lora")):
        if described.lora is not None:
            inner_lora.add(llm, described.lora)
        model = ElmForCausalLM(described, llm)
    model.adapter.to(device).requires_grad_(True)
    model.generation_config = llm.generation_config
    surgery.train_in_float32(model)
    return model.train(llm.training)


def begin(model: ElmForCausalLM, config: Config, seed: int, restored: bool) -> None:
    """Draw the weights that training begins with; of a run that is `restored` they are put back later."""
    tokens = config.norm == "tokens" and not restored
    gain = gain_like(model.get_input_embeddings()) if tokens else 1.0
    with adapters.drawing(seed):
        model.adapter.begin(config.start, gain)


def trained(model: ElmForCausalLM) -> "dict[str, Tensor]":
    """Return what is saved, under the names of the file: the adapter, and the LLM's LoRA."""
    saved = {f"adapter.{name}": tensor for name, tensor in model.adapter.state_dict().items()}
    saved |= {f"lora.{name}": weight for name, weight in lora_of(model.llm).items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in saved.items()}


def save(model: ElmForCausalLM, folder: Path) -> None:
    """Write the adapter and the config as transformers would: the same bytes for the same values."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained(model), folder / WEIGHTS, metadata={"format": "pt"})
    lora = lora_of(model.llm)
    model.config.lora_shapes = {name: list(weight.shape) for name, weight in lora.items()} or None
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)


def load(backbone: Backbone, folder: Path) -> ElmForCausalLM:
    """Return the backbone with what `save` wrote, in eval mode.

    Raises:
        ModelError: a file is missing or damaged, or belongs to another backbone.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / WEIGHTS)
        saved = ElmConfig.from_pretrained(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be read: {error}") from error
    if saved.llm is None:
        raise ModelError(f"{folder} names no language model in its config.json.")
    language_model.check(saved.llm, backbone)
    model = build(backbone, saved)
    if difference := differ(trained(model), weights):
        raise ModelError(f"{folder / WEIGHTS} belongs to another backbone: {difference}.")
    places = {name.replace("lora.", "llm.", 1): value for name, value in weights.items()}
    model.load_state_dict(places, strict=False)
    return model.eval()


def served(model: ElmForCausalLM) -> Served:
    """Return the language model's name, its tokens of a batch, and its LoRA in PEFT's form, if it has one."""
    from peft import LoraConfig

    named = model.config.llm
    assert named is not None
    lora = None
    if model.config.lora is not None:
        fields = LoraConfig(
            **model.config.lora, task_type="CAUSAL_LM", inference_mode=True
        ).to_dict()
        fields |= {"base_model_name_or_path": named["model"], "revision": named["revision"]}
        weights = {
            f"{adapters.PREFIX}{name.replace(f'.{adapters.ADAPTER}.', '.')}": weight.detach().cpu()
            for name, weight in lora_of(model.llm).items()
        }
        targets = sorted(fields["target_modules"])
        lora = {**fields, "target_modules": targets}, weights
    return Served(named["model"], named["revision"], functools.partial(_tokens_of, model), lora)


@torch.no_grad()
def _tokens_of(model: ElmForCausalLM, batch: Batch) -> "Tensor":
    """Return what the language model reads of a batch (N, L, H)."""
    place = next(model.adapter.parameters()).device
    ids, vectors, mask = (batch[name].to(place) for name in ("input_ids", "vectors", "vector_mask"))
    return model.embed(ids, vectors, mask)
