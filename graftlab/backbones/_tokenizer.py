"""Give a text model its tokenizer, both agreeing on padding, vocabulary and length."""

from typing import TYPE_CHECKING, Any

from graftlab.backbones._pretrained import Loaded, cannot_load, quiet
from graftlab.contracts import Backbone, Note
from graftlab.errors import ConfigError, ModelError
from graftlab.weights.pretrained import Located

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNLIMITED = 10**6  # tokenizers without a limit say 1e30


def with_tokenizer(kind: str, loaded: Loaded, located: Located, wanted: int | None) -> Backbone:
    """Return a text model with its tokenizer, both agreeing on padding, vocabulary and length.

    `wanted` is the longest input in tokens, None for the most that both allow.

    Raises:
        ConfigError: more tokens are wanted than the model has positions.
        ModelError: there is no tokenizer, or it does not fit the model.
        Refused: the tokenizer needs code of its own.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)
    except (ImportError, ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise cannot_load(located, error) from error
    pad_notes = set_pad_token(tokenizer, loaded.model, located.source)
    return Backbone(
        model=loaded.model,
        kind=kind,
        processor=tokenizer,
        head=loaded.head,
        max_length=token_limit(tokenizer, loaded.model, wanted),
        record=located.record(*loaded.notes, *pad_notes),
    )


def set_pad_token(
    tokenizer: "PreTrainedTokenizerBase", model: Any, source: str
) -> tuple[Note, ...]:
    """Make tokenizer, config and generation config agree on the pad token; return what to say.

    Without a token of its own, the end-of-text token pads: who masks padding has to go by the
    attention mask, not by the token.

    Raises:
        ModelError: nothing can pad, or the tokenizer has ids that the model has no embedding for.
    """
    notes: tuple[Note, ...] = ()
    if tokenizer.pad_token_id is None:
        token = tokenizer.eos_token or tokenizer.unk_token
        if token is None:
            raise ModelError(f"the tokenizer of {source} has no token for padding, end or unknown")
        tokenizer.pad_token = token
        notes = (Note.of("end_pads", model=source, token=token),)
    rows = model.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ModelError(
            f"tokenizer and model of {source} do not fit: the tokenizer has ids up to {largest}, "
            f"the model has {rows} embeddings. Use the tokenizer that the model was trained with."
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return notes


def token_limit(tokenizer: "PreTrainedTokenizerBase", model: Any, wanted: int | None) -> int | None:
    """Return the longest input in tokens: what is wanted, else what tokenizer and positions allow.

    Raises:
        ConfigError: more is wanted than the model has positions.
    """
    limits = [n for n in (tokenizer.model_max_length,) if n < UNLIMITED]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        for name, module in model.named_modules():
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None):
                positions -= module.padding_idx + 1  # RoBERTa counts positions from padding_idx + 1
                break
        limits.append(positions)
        if wanted and wanted > positions:
            raise ConfigError(
                f"backbone.max_length is {wanted}, but {model.config.model_type} has {positions} "
                f"positions. Set it to {positions} or less."
            )
    return wanted or min(limits, default=None)
