"""Texts as tokens, kept end to end in one array and padded a batch at a time."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from graftlab.tasks import _kept_tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

# Shapes: T tokens of all texts, N examples of a batch, L tokens of the longest.

LONG = 64  # characters a token: a text that is longer is looked at in parts
CHUNK = 4096  # texts given to the tokenizer at once: bounds the memory of what it returns


class Texts:
    """The tokens of a split's texts or pairs: 4 bytes a token, however many texts there are."""

    def __init__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str | None],
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
    ) -> None:
        import numpy as np

        self._left = tokenizer.padding_side == "left"
        self._pad = {"input_ids": tokenizer.pad_token_id or 0}
        if "token_type_ids" in tokenizer.model_input_names:
            self._pad["token_type_ids"] = tokenizer.pad_token_type_id
        self._mask = "attention_mask" in tokenizer.model_input_names
        found = _kept_tokens.arrays(
            tokenizer, [*texts, *pairs], lambda: {"max_length": max_length, "columns": [*self._pad]},
            lambda: _flat(texts, pairs, tokenizer, max_length, tuple(self._pad)),
        )  # fmt: skip
        self.truncated = int(found["truncated"])
        """How many texts (or pairs) were longer than `max_length`."""
        self.lengths = found["lengths"]
        self._ends = np.cumsum(self.lengths)
        self._flat_T = {name: found[name] for name in self._pad}

    def pad(self, indices: Sequence[int]) -> "dict[str, np.ndarray]":
        """Return the model's inputs (N, L), padded to the longest text on the tokenizer's side."""
        import numpy as np

        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[chosen]
        ends = self._ends[chosen]
        shape = len(chosen), int(lengths.max())
        arrays = {name: np.full(shape, pad, dtype=np.int64) for name, pad in self._pad.items()}
        mask = np.zeros(shape, dtype=np.int64)
        for row, (length, end) in enumerate(zip(lengths.tolist(), ends.tolist(), strict=True)):
            place = slice(shape[1] - length, None) if self._left else slice(length)
            mask[row, place] = 1
            for name, flat_T in self._flat_T.items():
                arrays[name][row, place] = flat_T[end - length : end]
        return {**arrays, "attention_mask": mask} if self._mask else arrays


def _flat(
    texts: Sequence[str],
    pairs: Sequence[str | None],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    names: Sequence[str],
) -> Mapping[str, "NDArray[Any]"]:
    """Return the columns `names` of all texts end to end (T), `lengths`, and how many are `truncated`."""
    import numpy as np

    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    lengths: list[int] = []
    truncated = 0
    for start in range(0, len(texts), CHUNK):
        encoded, cut = _encode(
            texts[start : start + CHUNK], pairs[start : start + CHUNK], tokenizer, max_length
        )
        truncated += cut
        lengths.extend(len(ids) for ids in encoded["input_ids"])
        for name, flat in parts.items():
            flat.append(np.fromiter(chain.from_iterable(encoded[name]), dtype=np.int32))
    empty = np.zeros(0, dtype=np.int32)
    flat_T = {name: np.concatenate([empty, *flat]) for name, flat in parts.items()}
    return {
        **flat_T,
        "lengths": np.array(lengths, dtype=np.int64),
        "truncated": np.array(truncated),
    }


def shortened(
    text: str, tokenizer: "PreTrainedTokenizerBase", max_length: int, left: bool = False
) -> str:
    """Return what of a very long text is enough to fill `max_length` tokens, its end where `left` is cut.

    The tokens that are kept are those of the whole, for what is left has twice as many and more.
    """
    size = LONG * max_length
    while len(text) > size:
        part = text[-size:] if left else text[:size]
        found = tokenizer(
            part, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        if len(found["input_ids"]) > 2 * max_length:
            return part
        size *= 4
    return text


def _encode(
    texts: Sequence[str],
    pairs: Sequence[str | None],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> tuple[dict[str, list[list[int]]], int]:
    left = tokenizer.truncation_side == "left"
    texts = [shortened(text, tokenizer, max_length, left) for text in texts]
    pairs = [pair and shortened(pair, tokenizer, max_length, left) for pair in pairs]
    encoded = tokenizer(
        list(texts),
        list(pairs) if pairs[0] is not None else None,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
    )
    ids = encoded["input_ids"]
    if encoded.encodings is not None:
        cut = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    else:  # a tokenizer written in Python does not tell what it cut
        full = [i for i, tokens in enumerate(ids) if len(tokens) >= max_length]
        cut = sum(len(tokenizer(texts[i], pairs[i])["input_ids"]) > max_length for i in full)
    # An empty text has no token where the tokenizer adds none of its own (Qwen's): no model takes that.
    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, 0)
    stand_in = next(token for token in ends if token is not None)
    columns = {"input_ids": [tokens or [stand_in] for tokens in ids]}
    if "token_type_ids" in tokenizer.model_input_names:
        types = encoded.get("token_type_ids") or [[0] * len(tokens) for tokens in ids]
        columns["token_type_ids"] = [row or [0] for row in types]
    return columns, cut
