"""An encoder of texts: any architecture that transformers classifies with (BERT, RoBERTa, ...)."""

from pydantic import Field

from graftlab.backbones import _pretrained, _tokenizer
from graftlab.contracts import Backbone, Problem
from graftlab.errors import ConfigError
from graftlab.weights.pretrained import locate


class Config(_pretrained.Source):
    max_length: int | None = Field(None, ge=1)
    """Longest input in tokens; as many as tokenizer and positions allow unless given."""


def load(config: Config, problem: Problem, seed: int, meta: bool = False) -> Backbone:
    """Return the encoder with a head for `problem`; on the meta device, without weights, if `meta`.

    On the meta device the head may name less or more than is new once the weights are read: only
    they tell whether BERT's pooler and ModernBERT's `head` were pretrained.

    Raises:
        ConfigError: the problem is not one for an encoder, or `max_length` is too long.
        ModelError: the model cannot be found or loaded, or its tokenizer does not fit.
        Refused: it needs pickles or code of its own.
    """
    from transformers import AutoModelForSequenceClassification

    if problem.kind == "tokens":
        raise ConfigError("an encoder does not generate text. Choose a decoder as backbone.model.")
    located = locate(config.model, config.revision, weights=not meta)
    fields = _pretrained.config_fields(config, problem)
    loaded = _pretrained.load_model(AutoModelForSequenceClassification, located, fields, seed, meta)
    return _tokenizer.with_tokenizer("encoder", loaded, located, config.max_length)
