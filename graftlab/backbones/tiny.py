"""A small transformer made on the spot, with random weights: for demos, tests and trying things."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from graftlab.backbones import _pretrained
from graftlab.config import Conflict, Section
from graftlab.contracts import Backbone, Note, Problem, written
from graftlab.errors import ConfigError
from graftlab.seeds import mix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Weights are drawn with a standard deviation of width ** -0.5, as in a linear layer that keeps the
# scale: BERT's 0.02 at this width would put out almost the same for every input.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0-4, the 256 bytes follow


class Config(Section):
    model: Literal["tiny"] = "tiny"
    """The name that stands for it."""
    modality: Literal["text", "images"] = "text"
    """What it reads: bytes of text (a BERT, or a Llama where tokens are put out) or images (a ViT)."""
    width: int = Field(32, ge=1, le=2**14)
    """Size of the hidden states; the feed-forward layers are four times as wide."""
    layers: int = Field(2, ge=1, le=256)
    """Number of transformer blocks."""
    heads: int = Field(2, ge=1, le=2**14)
    """Attention heads; they divide the width."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of hidden states and attention (a Llama has only the latter)."""
    max_length: int = Field(128, ge=4, le=2**20)
    """Positions of a text model: bytes, with the special tokens."""
    image_size: int = Field(8, ge=1, le=2**12)
    """Height and width of an image in pixels."""
    patch_size: int = Field(2, ge=1)
    """Height and width of a patch in pixels; it divides the image size."""
    channels: Literal[1, 3] = 3
    """Colours of an image: 1 for grey, 3 for red, green and blue."""
    seed: int = 0
    """Seed of the backbone's weights: runs with different seeds share one backbone, as pretrained."""

    @model_validator(mode="after")
    def _divides(self) -> "Config":
        if self.width % (2 * self.heads):
            raise Conflict(
                "width",
                f"width {self.width} is no multiple of 2 x heads ({self.heads}): rotary positions "
                f"turn pairs of values",
            )
        if self.image_size % self.patch_size:
            raise Conflict(
                "image_size",
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}",
            )
        return self


def load(config: Config, problem: Problem, seed: int, meta: bool = False) -> Backbone:
    """Return the small model; its head depends on `seed`, the rest on `config.seed` alone.

    Raises:
        ConfigError: tokens are wanted of a model that reads images.
    """
    import torch

    if problem.kind == "tokens" and config.modality == "images":
        raise ConfigError("backbone.modality is images, but the task wants text. Set it to text.")
    build = _vit if config.modality == "images" else _llama if problem.kind == "tokens" else _bert
    with (
        _pretrained.quiet(),
        torch.random.fork_rng(devices=[]),
        torch.device("meta" if meta else "cpu"),
    ):
        torch.default_generator.manual_seed(mix(config.seed, "backbone"))
        model = build(config, _pretrained.problem_fields(problem))
        head = () if problem.kind == "tokens" else _pretrained.outside_base(model)
        torch.default_generator.manual_seed(mix(seed, "head"))
        _pretrained.draw_again(model, head)
    images, note = config.modality == "images", Note.of("random_weights", model="tiny")
    return Backbone(
        model=model.eval(),
        kind="tiny",
        processor=_image_processor(config) if images else _tokenizer(config, problem),
        head=head,
        max_length=None if images else config.max_length,
        record={"source": "tiny", "revision": None, "sha256": {}, "notes": written([note])},
    )


def _bert(config: Config, fields: dict[str, Any]) -> "PreTrainedModel":
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(SPECIAL) + 256,
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            initializer_range=config.width**-0.5,
            max_position_embeddings=config.max_length,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            pad_token_id=0,
            **fields,
        )
    )


def _llama(config: Config, fields: dict[str, Any]) -> "PreTrainedModel":
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SPECIAL) + 256,
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            initializer_range=config.width**-0.5,
            max_position_embeddings=config.max_length,
            attention_dropout=config.dropout,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            **fields,
        )
    )


def _vit(config: Config, fields: dict[str, Any]) -> "PreTrainedModel":
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=config.channels,
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            initializer_range=config.width**-0.5,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            **fields,
        )
    )


def _tokenizer(config: Config, problem: Problem) -> object:
    """Return a tokenizer with one token a byte: every text has tokens, and comes back unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *symbols))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokens = problem.kind == "tokens"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A" if tokens else "[CLS] $A [SEP]",
        pair="[CLS] $A $B" if tokens else "[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    ends = {"bos_token": "[CLS]", "eos_token": "[SEP]"} if tokens else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.max_length,
        model_input_names=["input_ids", "attention_mask"] + ["token_type_ids"] * (not tokens),
        padding_side="right",
        **dict(zip(names, SPECIAL, strict=True)),
        **ends,
    )


def _image_processor(config: Config) -> object:
    """Return a processor that resizes and maps pixels to -1..1."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(
        size={"height": config.image_size, "width": config.image_size},
        image_mean=[0.5] * config.channels,
        image_std=[0.5] * config.channels,
        do_convert_rgb=config.channels == 3,
    )
