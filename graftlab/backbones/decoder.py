"""A decoder of texts: a causal language model (Llama, Qwen, ...), or a classifier on top of one."""

from dataclasses import replace

from pydantic import Field

from graftlab.backbones import _pretrained, _quantization, _tokenizer
from graftlab.contracts import Backbone, Problem
from graftlab.errors import ConfigError, Fault, ModelError
from graftlab.weights.pretrained import ENCODERS, Located, locate, read_config


class Config(_pretrained.Source):
    max_length: int | None = Field(None, ge=1)
    """Longest input in tokens; as many as tokenizer and positions allow unless given."""
    quantization: _quantization.Quantization | None = None
    """Hold the frozen weights in 4 or 8 bits: `{bits: 4}` is QLoRA's. Needs the extra `quantized`."""


def check(config: Config) -> list[Fault]:
    """Return what is wrong, before anything is loaded."""
    return _quantization.check(config.quantization)


def load(config: Config, problem: Problem, seed: int, meta: bool = False) -> Backbone:
    """Return the decoder: with its own language head for tokens, else with a head for `problem`.

    The tokenizer pads on the right, as training wants; generation sets the left side itself.
    `meta` builds on the meta device, without weights, as it is before it is quantized.

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
    fields, quantization = _pretrained.config_fields(config, problem), config.quantization
    _refuse_quantized(located)
    if quantization is not None and not meta:
        fields |= _quantization.fields(quantization)
    loaded = _pretrained.load_model(auto, located, fields, seed, meta)
    backbone = _tokenizer.with_tokenizer("decoder", loaded, located, config.max_length)
    backbone.processor.padding_side = "right"
    if quantization is None:
        return backbone
    if not meta:
        _quantization.prepare(backbone.model, backbone.head)
    found = _quantization.record(backbone.model, quantization)
    return replace(backbone, record={**backbone.record, "quantization": found})


def _refuse_quantized(located: Located) -> None:
    """Refuse a checkpoint that is quantized already: what its weights were, nobody knows.

    Raises:
        ModelError: it is.
    """
    if found := read_config(located.folder).get("quantization_config"):
        raise ModelError(
            f"{located.source} is quantized already ({found.get('quant_method')}), so that nothing can be "
            f"merged into its weights. Give the model that it was made from, and backbone.quantization.",
            kind="quantized",
            given=found.get("quant_method"),
        )
