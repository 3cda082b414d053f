"""Models of transformers from elsewhere as objects, with an adapter of PEFT on them."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.adapters import files as adapter_files
from graftlab.contracts import Differentiable, Merged
from graftlab.errors import ModelError
from graftlab.explanation import hidden, sample

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from graftlab.contracts.arrays import Floats

FAILS = (OSError, ValueError, KeyError, RuntimeError, ModelError)
"""What transformers and peft raise where a folder is not what they load."""

NO_EXAMPLES = "examples are those of a run's own task: leave them out"


class Opened(NamedTuple):
    """A model in memory."""

    model: "nn.Module"
    tokenizer: "PreTrainedTokenizerBase"
    writes: bool
    """Whether it is one that writes texts."""


def opened(model: str, tokenizer: Path, adapter: Path | None = None) -> Opened | str:
    """Return a model with its adapter, if any, or why it cannot be loaded."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(model)
        given = _task_type(adapter) or "".join((config.architectures or ("",))[:1])
        writes = "CAUSAL" in given.upper() or given.endswith("LMHeadModel")
        kind = (
            transformers.AutoModelForCausalLM
            if writes
            else transformers.AutoModelForSequenceClassification
        )
        made = _adapted(kind.from_pretrained(model), adapter)
        if made is None:  # made for a model without a head: its weights have other names
            made = _adapted(transformers.AutoModel.from_pretrained(model), adapter)
        words = transformers.AutoTokenizer.from_pretrained(tokenizer)
    except FAILS as error:
        return f"it cannot be loaded: {error}"[:200]
    if made is None:
        return f"the weights of {adapter} have no place in {model}"
    return Opened(made, words, writes)


def _adapted(model: Any, adapter: Path | None) -> "nn.Module | None":
    """Return the model with its adapter; None where peft finds no place for one of its weights."""
    if adapter is None:
        return model
    from peft import PeftModel, get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # told by the result
        made: nn.Module = PeftModel.from_pretrained(model, str(adapter))
    held = get_peft_model_state_dict(made, save_embedding_layers=False)
    return made if set(adapter_files.read(adapter)[1]) <= set(held) else None


def loaded(
    model: str, tokenizer: Path, examples: int, adapter: Path | None = None
) -> Differentiable | str:
    """Return a model, with an adapter of PEFT on it, and its loss on one sentence."""
    if examples:
        return NO_EXAMPLES
    found = opened(model, tokenizer, adapter)
    if isinstance(found, str):
        return found
    sample.train_again(found.model, adapter)
    return sample.of_sentence(found.model, found.tokenizer, found.writes)


def merged(model: str, tokenizer: Path, examples: int, adapter: Path | None = None) -> Merged | str:
    """Return a model with its adapter's change in its own weights, and its losses."""
    if examples:
        return NO_EXAMPLES
    found = opened(model, tokenizer, adapter)
    if isinstance(found, str):
        return found
    plain: Any = found.model
    plain = plain if adapter is None else plain.merge_and_unload()
    sample.train_again(plain)
    tried = sample.of_sentence(plain, found.tokenizer, found.writes)
    return sample.merged(tried, found.tokenizer, found.writes)


def activations(
    model: str, tokenizer: Path, texts: Sequence[str], adapter: Path | None = None
) -> "Sequence[Floats] | str":
    """Return (N, D) what comes out of each block as the model reads texts, or why there is nothing."""
    found = opened(model, tokenizer, adapter)
    return found if isinstance(found, str) else hidden.of_texts(found.model, found.tokenizer, texts)


def _task_type(adapter: Path | None) -> str | None:
    if adapter is None:
        return None
    read = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    given = read.get("task_type")
    return None if given is None else str(given)
