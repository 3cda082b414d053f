"""Prompt tuning: trained embeddings in front of the input's own.

Lester et al., 2021, arXiv 2104.08691. They start as the embeddings of words, which the paper found better
than noise: random ones of the vocabulary, or those of a text.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from graftlab import adapters
from graftlab.config import Conflict
from graftlab.contracts import Attached, Backbone, Excused, Promises, Setting
from graftlab.errors import ConfigError
from graftlab.weights import surgery

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

PROMISES = Promises(
    starts_unchanged=Excused("the input is longer by the trained embeddings from the start"),
    mergeable=Excused("it puts embeddings before the input, and changes no weight"),
    quantized=True,
    not_backbones={"vision": "images have no words"},
    not_architectures={"vit": "images have no words"},
    virtual_tokens=True,
    usual_rates=(1e-3, 0.5),  # up to the 0.3 of Lester et al. (2021, arXiv 2104.08691)
)


class Config(adapters.PeftFields):
    """Prompt tuning."""

    tuner: ClassVar[str] = "prompt_tuning"
    own_fields: ClassVar[dict[str, str]] = {
        "prompt_tuning_init": "method.init",
        "prompt_tuning_init_text": "method.init_text",
        "tokenizer_name_or_path": "the backbone",
        "tokenizer_kwargs": "the backbone",
    }

    num_tokens: int = Field(20, ge=1, le=surgery.MOST_RANK)
    """Number of trained embeddings."""
    init: Literal["words", "random"] = "words"
    """Where they start: embeddings of words drawn from the vocabulary, or normal noise."""
    init_text: str | None = None
    """Start from the words of this text instead, repeated as needed: say the task, or name its labels."""

    @model_validator(mode="after")
    def _one_start(self) -> "Config":
        if self.init_text is not None and self.init == "random":
            raise Conflict("init", "init random and init_text exclude each other")
        if self.init_text is not None and not self.init_text.strip():
            raise Conflict("init_text", "init_text is empty")
        return self


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with trained embeddings in front of its input.

    Raises:
        ConfigError: the backbone takes no tokens.
    """
    from peft import PromptTuningConfig

    if adapters.task_type(backbone) is None:
        raise ConfigError(
            "method prompt does not fit this model: images have no words. Choose another method, such as "
            "lora."
        )
    fields = {
        "num_virtual_tokens": config.num_tokens,
        "token_dim": _embeddings(backbone).weight.shape[1],  # ALBERT's are narrower
        "num_layers": 1,  # peft asks for both under names that DistilBERT lacks, and uses neither
        "num_attention_heads": 1,
        "prompt_tuning_init": "SAMPLE_VOCAB" if config.init == "words" else "RANDOM",
        **adapters.common_fields(backbone),
    }
    _pad_left(backbone)
    peft_config = adapters.make_config(PromptTuningConfig, fields, config.peft)
    model = adapters.attach(backbone, peft_config, setting.seed)
    if config.init_text is not None and setting.restored is None:
        _start_from(model, backbone, config.init_text)
    _cut_logits(model)
    return Attached(model, computed=adapters.random_frozen(model), positions=config.num_tokens)


def _embeddings(backbone: Backbone) -> Any:
    model: Any = backbone.model
    return model.get_input_embeddings()


def _pad_left(backbone: Backbone) -> None:
    """Let a decoder that classifies by the last token find it.

    Trained embeddings come without token ids, so transformers takes the last position whatever it is
    (`pooled_logits` of its sequence classifiers). Padding goes to the left here, positions stay.
    """
    if "score" in backbone.head:
        backbone.model.register_forward_pre_hook(_move_padding, with_kwargs=True)


def _move_padding(
    model: "nn.Module", args: object, inputs: "dict[str, Tensor]"
) -> "tuple[object, dict[str, Tensor]]":
    embeds_NLE, mask_NL = inputs.get("inputs_embeds"), inputs.get("attention_mask")
    if embeds_NLE is None or mask_NL is None:
        return args, inputs
    source_NL = mask_NL.gt(0).int().argsort(dim=1, stable=True)  # padding first, the rest in order
    mask_NL = mask_NL.gather(1, source_NL)
    index = source_NL[:, :, None].expand_as(embeds_NLE)
    moved = {
        "inputs_embeds": embeds_NLE.gather(1, index),
        "attention_mask": mask_NL,
        "position_ids": (mask_NL.cumsum(dim=1).long() - 1).clamp(min=0),
    }
    return args, inputs | moved


def _cut_logits(model: "PeftModel") -> None:
    """Let the logits of tokens stand at the input's own positions, without those of the embeddings."""
    if model.peft_config[adapters.ADAPTER].task_type == "CAUSAL_LM":
        model.register_forward_hook(_own_positions, with_kwargs=True)


def _own_positions(model: "nn.Module", args: object, inputs: dict[str, Any], output: Any) -> Any:
    if "input_ids" in inputs:
        output.logits = output.logits[:, -inputs["input_ids"].shape[1] :]
    return output


def _start_from(model: Any, backbone: Backbone, text: str) -> None:
    """Set the embeddings to those of the text's tokens, repeated."""
    import torch

    tokens = backbone.processor(text, add_special_tokens=False)["input_ids"]
    if not tokens:
        raise ConfigError(f"method.init_text {text!r} holds no token.")
    weight = model.prompt_encoder[adapters.ADAPTER].embedding.weight
    repeated = [tokens[i % len(tokens)] for i in range(len(weight))]
    with torch.no_grad():
        ids = torch.tensor(repeated, device=weight.device)
        weight.copy_(_embeddings(backbone)(ids))


save = adapters.save
off = adapters.off


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved embeddings."""
    _pad_left(backbone)
    model = adapters.load(backbone, folder)
    _cut_logits(model)
    return model
