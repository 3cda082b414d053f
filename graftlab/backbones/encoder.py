"""An encoder of texts: any architecture that transformers classifies with (BERT, RoBERTa, ...)."""

from typing import Literal

from pydantic import Field

from graftlab.config import Section
from graftlab.contracts import Backbone, Problem


class Config(Section):
    model: str
    """Alias, hub id, or folder with config.json and safetensors."""
    revision: str | None = None
    """Branch, tag or commit on the hub; the main branch unless given; the run records which."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the frozen weights; the head is float32 whatever this says."""
    attention: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    """Attention kernel; transformers chooses unless given."""
    max_length: int | None = Field(None, ge=1)
    """Longest input in tokens; the tokenizer's own limit unless given."""


def load(config: Config, problem: Problem, seed: int, meta: bool = False) -> Backbone:
    """Return the encoder with a head for `problem`; on the meta device, without weights, if `meta`.

    Raises:
        ModelError: the model cannot be found or loaded.
    """
    from transformers import AutoModelForSequenceClassification

    from graftlab.backbones import _loading
    from graftlab.pretrained import locate

    located = locate(config.model, config.revision, weights=not meta)
    fields = _loading.problem_fields(problem) | {"attn_implementation": config.attention}
    loaded = _loading.load_model(
        AutoModelForSequenceClassification, located, fields | {"dtype": config.dtype}, seed, meta
    )
    tokenizer = _loading.load_tokenizer(located)
    return Backbone(
        model=loaded.model,
        kind="encoder",
        processor=tokenizer,
        head=loaded.head,
        max_length=_loading.token_limit(tokenizer, loaded.model, config.max_length),
        record=located.record(*loaded.notes),
    )
