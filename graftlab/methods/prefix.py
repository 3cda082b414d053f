"""Prefix tuning: trained keys and values that every layer attends to, beside those of the input.

Li & Liang, 2021, arXiv 2101.00190. They start from the keys and values of real words, as the paper
advises: from random ones peft's own suite reaches less than half the accuracy.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from graftlab import adapters
from graftlab.config import Conflict
from graftlab.contracts import Attached, Backbone, Excused, Promises, Setting
from graftlab.errors import (
    ConfigError,
    Fault,
    wrong,
)
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn

PROMISES = Promises(
    starts_unchanged=Excused("any further key, even zero, takes some of the attention"),
    mergeable=Excused("it gives the attention further keys and values, and changes no weight"),
    quantized=True,
    not_backbones={"vision": "images have no words to stand before"},
    not_architectures=dict.fromkeys(
        ("albert", "deberta", "deberta-v2", "distilbert", "modernbert", "mpnet", "vit"),
        "its attention takes no keys and values from outside",  # `past_key_values`
    ),
    virtual_tokens=True,
    usual_rates=(5e-5, 5e-2),  # from the 5e-5 of Li and Liang (2021, arXiv 2101.00190)
)


class Config(adapters.PeftFields):
    """Prefix tuning."""

    tuner: ClassVar[str] = "prefix_tuning"

    num_tokens: int = Field(30, ge=1, le=surgery.MOST_RANK)
    """Number of trained keys and values in each layer (30 in adapter-hub)."""
    init: Literal["words", "random"] = "words"
    """Where they start: the keys and values of the first words of the training data, or normal noise."""

    @model_validator(mode="after")
    def _no_words_behind_a_projection(self) -> "Config":
        if self.init == "words" and self.peft.get("prefix_projection"):
            raise Conflict(
                "init", "init words and peft.prefix_projection exclude each other; set init random"
            )
        return self


def check(
    config: Config, backbone_kind: str, model_type: str | None, gradient_checkpointing: bool
) -> list[Fault]:
    """Return why the method does not fit the run, before anything is loaded."""
    if not gradient_checkpointing:
        return []
    said = (
        "method prefix does not work with training.gradient_checkpointing: keys and values are handed over "
        "in a cache, which checkpointing drops. Turn it off, or choose another method."
    )
    return [wrong("name", said, kind="conflict")]


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with trained keys and values in every layer.

    Raises:
        ConfigError: the backbone takes none.
    """
    from peft import PrefixTuningConfig

    model_type = getattr(getattr(backbone.model, "config", None), "model_type", None)
    why = PROMISES.misfit(backbone.kind, model_type)
    if why is None and adapters.task_type(backbone) is None:
        why = PROMISES.not_backbones["vision"]  # the kind `tiny`, of images
    if why is not None:
        raise ConfigError(
            f"method prefix does not fit this model: {why}. Choose another method, such as lora."
        )
    if problems := check(config, backbone.kind, model_type, setting.gradient_checkpointing):
        raise ConfigError(problems)
    fields = {
        "num_virtual_tokens": config.num_tokens,
        **_shape(backbone),
        **adapters.common_fields(backbone),
    }
    peft_config = adapters.make_config(PrefixTuningConfig, fields, config.peft)
    model = adapters.attach(backbone, peft_config, setting.seed)
    if config.init == "words" and setting.restored is None:
        from peft import initialize_kv_prefix_from_past_key_values

        words = first_words(setting, config.num_tokens)
        cache = keys_and_values(backbone.model, words)
        initialize_kv_prefix_from_past_key_values(model, past_key_values=cache)
    return Attached(model, computed=adapters.random_frozen(model), positions=config.num_tokens)


def first_words(setting: Setting, num_tokens: int) -> "Tensor":
    """Return the first tokens (1, num_tokens) of the training data, padding left out.

    Raises:
        ConfigError: there are fewer.
    """
    import torch

    words: list[Tensor] = []
    for batch in setting.batches():
        mask = batch.get("attention_mask")
        tokens = batch["input_ids"]
        words.append(tokens[mask.bool()] if mask is not None else tokens.flatten())
        if sum(map(len, words)) >= num_tokens:
            return torch.cat(words)[None, :num_tokens]
    raise ConfigError(
        f"method.num_tokens is {num_tokens}, but the training data has fewer tokens to start from. "
        "Lower it, or set method.init: random."
    )


def _shape(backbone: Backbone) -> dict[str, int]:
    """Return the number and the sizes of the keys that the attention takes.

    They are looked at, because configs name them in many ways (Falcon has one key for all heads).
    """
    import torch

    layers = keys_and_values(backbone.model, torch.ones((1, 1), dtype=torch.long)).layers
    _, num_heads, _, size = layers[0].keys.shape
    return {
        "num_layers": len(layers),
        "num_attention_heads": num_heads,
        "token_dim": num_heads * size,
    }


def keys_and_values(model: Any, tokens: "Tensor") -> Any:
    """Return transformers' cache with what each layer makes of `tokens` (1, L)."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    training = model.training
    model.eval()
    with torch.no_grad():
        model.base_model(
            input_ids=tokens.to(model.device),
            attention_mask=torch.ones_like(tokens, device=model.device),
            past_key_values=cache,
            use_cache=True,
        )
    model.train(training)
    return cache


save = adapters.save
off = adapters.off


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved keys and values."""
    return adapters.load(backbone, folder)
