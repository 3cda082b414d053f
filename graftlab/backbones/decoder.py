"""A decoder of texts: a causal language model (Llama, Qwen, ...), or a classifier on top of one."""

from pathlib import Path

from pydantic import Field

from graftlab.backbones import _examples, _loading, _tokenizing
from graftlab.contracts import Backbone, Problem
from graftlab.errors import ConfigError
from graftlab.pretrained import ENCODERS, locate, read_config


class Config(_loading.Source):
    max_length: int | None = Field(None, ge=1)
    """Longest input in tokens; as many as tokenizer and positions allow unless given."""


def example(folder: Path) -> Config:
    """Return a section that loads a small model, written into `folder`: for `graftlab.testing`."""
    return Config(model=_examples.text_model(folder, "decoder"))


def load(config: Config, problem: Problem, seed: int, meta: bool = False) -> Backbone:
    """Return the decoder: with its own language head for tokens, else with a head for `problem`.

    The tokenizer pads on the right, as training wants; generation sets the left side itself.
    `meta` builds on the meta device, without weights.

    Raises:
        ConfigError: the architecture reads in both directions, or `max_length` is too long.
        ModelError: the model cannot be found or loaded, or its tokenizer does not fit.
        Refused: it needs pickles or code of its own.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    located = locate(config.model, config.revision, weights=not meta)
    if (model_type := read_config(located.folder).get("model_type")) in ENCODERS:
        raise ConfigError(
            f"backbone.kind is decoder, but {config.model} is {model_type}, which reads in both "
            f"directions. Use backbone.kind encoder, or another model."
        )
    auto = AutoModelForCausalLM if problem.kind == "tokens" else AutoModelForSequenceClassification
    fields = _loading.config_fields(config, problem)
    loaded = _loading.load_model(auto, located, fields, seed, meta)
    backbone = _tokenizing.with_tokenizer("decoder", loaded, located, config.max_length)
    backbone.processor.padding_side = "right"
    return backbone
