"""Tokens kept between runs: they follow from texts, tokenizer and the code between them."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.data import kept_arrays
from graftlab.rundir import files

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

PACKAGES = ("tokenizers", "transformers")


def arrays(
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str | None],
    how: Callable[[], Mapping[str, object]],
    make: Callable[[], Mapping[str, "NDArray[Any]"]],
) -> Mapping[str, "NDArray[Any]"]:
    """Return what `make` makes of texts with a tokenizer; `how` says in JSON what else it goes by.

    Only a tokenizer that can be written down whole has its tokens kept; one in Python cannot.
    """
    if not tokenizer.is_fast:
        return make()

    def decided_by() -> Iterator[str]:
        yield from _tokenizer(tokenizer)
        yield files.dump_json(how())
        yield _code()
        yield from map(metadata.version, PACKAGES)

    return kept_arrays.of(texts, decided_by, make)


def _tokenizer(tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    """Yield a tokenizer as it is now: its rules, vocabulary and added tokens, and what transformers adds."""
    rules: Any = tokenizer.backend_tokenizer
    rules.no_truncation()  # each call sets both anew
    rules.no_padding()
    yield rules.to_str()
    yield type(tokenizer).__name__
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    sides = [tokenizer.truncation_side, tokenizer.padding_side]
    yield files.dump_json([special, sides, list(tokenizer.model_input_names)])


@functools.cache
def _code() -> str:
    """Return a hash of what stands between texts and tokens."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
