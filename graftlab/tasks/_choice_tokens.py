"""Prompts and choices as tokens, each choice behind its prompt, kept end to end in one array."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.tasks import _kept_tokens
from graftlab.tasks._outputs import UNKNOWN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

# Shapes: N questions, C choices, S sequences (N, or N C), T tokens of all, L of the longest.

TEXTS = 4096  # given to the tokenizer at once: bounds the memory of what it returns


class Texts(NamedTuple):
    """What is tokenized of a split with N questions."""

    prompts: list[str]
    """(N), without white space at the end: it belongs to the choice."""
    wholes: list[str]
    """(N C), prompt and choice."""


class Tokens(NamedTuple):
    """One choice after its prompt."""

    ids: list[int]
    start: int
    """Where the choice begins; at least 1, for a token needs one before it."""
    cut: bool
    """Whether it was longer than the model takes."""


def own_start(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that the tokenizer puts before any text (what it puts after is not wanted)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    places = range(len(whole) - len(bare) + 1)
    return whole[: next(i for i in places if whole[i : i + len(bare)] == bare)]


def join(
    prompt: list[int], whole: list[int], start: list[int], stand_in: int, max_length: int
) -> Tokens:
    """Return prompt and choice, `whole`, which were tokenized together, split where they part.

    The choice begins where the tokens of both first differ from those of the `prompt` alone: a token that
    reaches over the border is scored. Too long a sequence loses the beginning of its prompt, as in the
    harness, and only then the end of its choice; the tokens in `start` stay. Where nothing else stands
    before the choice, `stand_in` does.
    """
    same = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False))
    border = min(sum(1 for _ in same), len(whole) - 1)
    start = start or ([] if border else [stand_in])
    room = max_length - len(start)
    choice = whole[border:][: room if start else room - 1]
    kept = whole[max(0, border - (room - len(choice))) : border]
    cut = len(kept) + len(choice) < len(whole)
    return Tokens([*start, *kept, *choice], len(start) + len(kept), cut)


class Sequences:
    """The tokens of a split's choices, each after its prompt: 4 bytes a token."""

    def __init__(
        self,
        texts: "Texts",
        num_choices: int,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
    ) -> None:
        import numpy as np

        found = _kept_tokens.arrays(
            tokenizer, [*texts.prompts, *texts.wholes],
            lambda: {"max_length": max_length, "choices": num_choices},
            lambda: _joined(texts, num_choices, tokenizer, max_length),
        )  # fmt: skip
        self._pad = tokenizer.pad_token_id or 0
        self._starts, self._lengths, self._flat_T = (
            found[name] for name in ("starts", "lengths", "ids")
        )
        self._ends = np.cumsum(self._lengths)
        self.truncated = int(found["cut"].reshape(-1, num_choices).any(-1).sum())
        """How many questions have a choice that was too long with its prompt."""
        self.lengths = self._lengths.reshape(-1, num_choices).max(-1)
        """Tokens of each question's longest sequence."""

    def pad(self, sequences: Sequence[int]) -> "dict[str, np.ndarray]":
        """Return the model's inputs and `labels` (S, L): the tokens of the choices, `UNKNOWN` elsewhere.

        They are padded on the right, where a causal model has read all that counts.
        """
        import numpy as np

        shape = len(sequences), int(self._lengths[list(sequences)].max())
        ids_SL = np.full(shape, self._pad, dtype=np.int64)
        mask_SL = np.zeros(shape, dtype=np.int64)
        labels_SL = np.full(shape, UNKNOWN, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            length, start = self._lengths[sequence], self._starts[sequence]
            tokens = self._flat_T[self._ends[sequence] - length : self._ends[sequence]]
            ids_SL[row, :length] = tokens
            mask_SL[row, :length] = 1
            labels_SL[row, start:length] = tokens[start:]
        return {"input_ids": ids_SL, "attention_mask": mask_SL, "labels": labels_SL}


def _joined(
    texts: Texts, num_choices: int, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> Mapping[str, "NDArray[Any]"]:
    """Return the `ids` of all sequences end to end (T), and of each (S) its length, its choice's start, and
    whether it is cut."""
    import numpy as np

    start = own_start(tokenizer)
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    stand_in = next(token for token in ends if token is not None)
    prompts = chain.from_iterable([p] * num_choices for p in _encode(tokenizer, texts.prompts))
    found = [
        join(prompt, whole, start, stand_in, max_length)
        for prompt, whole in zip(prompts, _encode(tokenizer, texts.wholes), strict=True)
    ]
    return {
        "ids": np.fromiter(chain.from_iterable(t.ids for t in found), dtype=np.int32),
        "lengths": np.array([len(tokens.ids) for tokens in found], dtype=np.int64),
        "starts": np.array([tokens.start for tokens in found], dtype=np.int64),
        "cut": np.array([tokens.cut for tokens in found], dtype=bool),
    }


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> Iterator[list[int]]:
    for start in range(0, len(texts), TEXTS):
        yield from tokenizer(texts[start : start + TEXTS], add_special_tokens=False)["input_ids"]
