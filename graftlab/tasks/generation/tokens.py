"""Examples as tokens: what is trained, one end-of-sequence, special tokens where a template has them."""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.data.labels import Unusable
from graftlab.tasks import _kept_tokens
from graftlab.tasks._choice_tokens import own_start
from graftlab.tasks._outputs import UNKNOWN
from graftlab.tasks.generation.chat import Segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: T tokens of all examples, N examples of a batch, L tokens of the longest.

TEXTS = 1024  # examples tokenized at once: bounds the memory of what the tokenizer returns


class Source(NamedTuple):
    """An example's text in segments."""

    segments: Sequence[Segment]
    ends: bool
    """Whether its text is whole, so that an end-of-sequence belongs behind it."""


@dataclass(frozen=True)
class Example:
    """An example's tokens (L)."""

    ids: "np.ndarray"
    trained: "np.ndarray"
    """Whether each is predicted."""
    placed: "np.ndarray | None" = None
    """Whether each is the place of a vector; None: there is none."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_vectors(self) -> int:
        """How many places of vectors it has."""
        return 0 if self.placed is None else int(self.placed.sum())

    def within(self, max_length: int) -> "Example":
        """Return its last tokens before and its first ones from where training begins: too long a prompt
        loses its beginning, too long an answer alone its end.

        Raises:
            Unusable: a prompt with a vector is too long; nothing may be cut of it.
        """
        first = int(self.trained.argmax()) if self.trained.any() else len(self)
        if self.placed is not None:
            if first > max_length:
                raise Unusable(f"its prompt of {first} tokens is cut off at {max_length}")
            return Example(*(part[:max_length] for part in (self.ids, self.trained, self.placed)))
        kept = max(1, max_length - (len(self) - first)) if first else 0
        place = slice(max(0, first - kept), max(0, first - kept) + max_length)
        return Example(self.ids[place], self.trained[place])


class Encoder:
    """A tokenizer that turns segments into tokens, each for itself.

    A prompt has then the same tokens with its answer as alone, which is how answers are written. Text that
    spells a special token is text, but in segments that are not `plain`.
    """

    def __init__(self, tokenizer: Any, own: bool = True) -> None:
        self.tokenizer = tokenizer
        self.special = special_tokens(tokenizer)
        self._start = own_start(tokenizer) if own else []
        self._eos, self._pad = tokenizer.eos_token_id, tokenizer.pad_token_id or 0
        stops = set(self.special.values()) - {tokenizer.unk_token_id}
        self.stops = {*stops, self._eos}
        """Tokens that end an answer where they stand behind it."""
        ab = tokenizer.decode(self._bare(["a"], True)[0] + self._bare(["b"], True)[0])
        # Put in front of a later segment where the tokenizer would else put a space there (Llama 2's)
        self._anchor = "" if ab == "ab" else "\n"
        self._anchored = len(self._bare(["\n"], True)[0]) if self._anchor else 0

    def _bare(self, texts: Sequence[str], plain: bool) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            split_special_tokens=plain,
            verbose=False,  # of texts that are too long: they will be cut
        )["input_ids"]
        return found

    def examples(self, sources: Sequence[Source]) -> list[Example]:
        """Return the sources as tokens."""
        texts = [segment.text for source in sources for segment in source.segments]
        found = _kept_tokens.arrays(
            self.tokenizer,
            texts,
            lambda: {"start": self._start, "sources": [_form(source) for source in sources]},
            lambda: self._flat(sources),
        )
        ends = found["lengths"].cumsum().tolist()
        places = [slice(first, last) for first, last in zip([0, *ends], ends, strict=False)]
        ids_T, trained_T, placed_T = found["ids"], found["trained"], found.get("placed")
        return [
            Example(
                ids_T[place],
                trained_T[place],
                placed_T[place] if placed_T is not None and placed_T[place].any() else None,
            )
            for place in places
        ]

    def _flat(self, sources: Sequence[Source]) -> Mapping[str, "NDArray[Any]"]:
        """Return the examples end to end (T), and their `lengths`; `placed` only where there are vectors."""
        import numpy as np

        parts = range(0, len(sources), TEXTS)
        found = [one for at in parts for one in self._examples(sources[at : at + TEXTS])]
        no_ids, none = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.bool_)
        arrays = {
            "ids": np.concatenate([no_ids, *(one.ids for one in found)]),
            "trained": np.concatenate([none, *(one.trained for one in found)]),
            "lengths": np.array([len(one) for one in found], dtype=np.int64),
        }
        if any(one.placed is not None for one in found):
            placed = (one.trained & False if one.placed is None else one.placed for one in found)
            arrays["placed"] = np.concatenate([none, *placed])
        return arrays

    def _examples(self, sources: Sequence[Source]) -> list[Example]:
        kinds: dict[tuple[bool, bool], list[tuple[int, int]]] = defaultdict(list)
        for place, source in enumerate(sources):
            for number, segment in enumerate(source.segments):
                if not segment.vector:
                    kinds[number == 0, segment.plain].append((place, number))
        # a vector's place has a token that no model reads
        parts = [[[self._pad] * segment.vector for segment in s.segments] for s in sources]
        for (first, plain), places in kinds.items():
            anchor, skip = ("", 0) if first else (self._anchor, self._anchored)
            texts = [anchor + sources[place].segments[n].text for place, n in places]
            for (place, n), ids in zip(places, self._bare(texts, plain), strict=True):
                parts[place][n] = ids[skip:]
        return [self._joined(s, part) for s, part in zip(sources, parts, strict=True)]

    def _joined(self, source: Source, parts: list[list[int]]) -> Example:
        import numpy as np

        segments = source.segments
        own = segments and not segments[0].vector and parts[0][: len(self._start)] == self._start
        ids = [] if own else [*self._start]  # else the template has put it there
        trained = [False] * len(ids)
        placed: list[int] = []
        last = len(segments) - 1
        for place, (segment, part) in enumerate(zip(segments, parts, strict=True)):
            placed += [len(ids)] * segment.vector
            # an end belongs to the last piece of a stretch of like segments
            closes = place == last or not segments[place + 1].trained
            stop = self._end(part) if segment.trained and closes and not segment.plain else None
            if place == last and stop is not None:
                part = part[: stop + 1]
            size = len(part) if stop is None else stop + 1
            ids += part
            trained += [segment.trained] * size + [False] * (len(part) - size)
            if place == last and source.ends and stop is None:
                ids.append(self._eos)
                trained.append(True)
        if not ids:  # no model takes nothing
            ids, trained = [self._eos], [source.ends]
        elif not segments and source.ends:
            ids.append(self._eos)
            trained.append(True)
        example = Example(np.array(ids, dtype=np.int32), np.array(trained, dtype=np.bool_))
        if not placed:
            return example
        return replace(example, placed=np.isin(np.arange(len(ids)), placed))

    def _end(self, ids: Sequence[int]) -> int | None:
        """Return the place of the special token that ends a turn, the first of those at its end; None
        where there is none. White space that the template puts between turns follows it."""
        found = None
        for place in range(len(ids) - 1, -1, -1):
            if ids[place] in self.stops:
                found = place
            elif not self._is_space(ids[place]):
                break
        return found

    @functools.cache  # noqa: B019  lives as long as its tokenizer is in use
    def _is_space(self, token: int) -> bool:
        return bool(self.tokenizer.decode([token]).isspace())

    def end_of(self, text: str) -> int | None:
        """Return the special token that ends an answer's text, if any."""
        [ids] = self._bare([text], False)
        place = self._end(ids)
        return None if place is None else ids[place]

    def cut(self, text: str, fewer: int) -> str:
        """Return the text without its last `fewer` tokens, or about so many where the tokenizer does not
        tell what stands where."""
        if not self.tokenizer.is_fast:
            share = len(text) / max(1, len(self._bare([text], True)[0]))
            return text[: max(0, len(text) - max(1, round(fewer * share)))]
        offsets = self.tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
            verbose=False,
        )["offset_mapping"]
        kept = len(offsets) - fewer
        return text[: offsets[kept][0]] if kept > 0 else ""


def _form(source: Source) -> list[object]:
    """Return all of a source but its texts."""
    return [source.ends, *([s.trained, s.plain, s.vector] for s in source.segments)]


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the tokens of a meaning of their own, some of which have no name in the tokenizer (Llama 3's
    end of turn)."""
    added = tokenizer.added_tokens_decoder.items()
    found = {token.content: number for number, token in added if token.special}
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {**found, **dict(named)}


class Flat:
    """Examples end to end in arrays: 5 bytes a token."""

    def __init__(self, examples: Sequence[Example], pad: int) -> None:
        import numpy as np

        self._pad = pad
        self.lengths = np.array([len(example) for example in examples], dtype=np.int64)
        self._ends = np.cumsum(self.lengths)
        no_ids, none_trained = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.bool_)
        self._ids_T = np.concatenate([no_ids, *(e.ids for e in examples)])
        self._trained_T = np.concatenate([none_trained, *(e.trained for e in examples)])
        placed = [e.placed for e in examples if e.placed is not None]
        assert len(placed) in (0, len(examples)), "of all examples, or of none"
        self._placed_T = np.concatenate(placed) if placed else None

    def __len__(self) -> int:
        return len(self.lengths)

    def of(self, index: int) -> "tuple[np.ndarray, np.ndarray]":
        """Return an example's tokens and labels: the token where it is trained, `UNKNOWN` elsewhere."""
        import numpy as np

        place = self._place(index)
        ids = self._ids_T[place]
        return ids, np.where(self._trained_T[place], ids, UNKNOWN)

    def _place(self, index: int) -> slice:
        end = self._ends[index]
        return slice(end - self.lengths[index], end)

    def pad(self, indices: Sequence[int], left: bool = False) -> "dict[str, np.ndarray]":
        """Return `input_ids`, `attention_mask` and `labels` (N, L), padded on the right, or `left`; where
        examples have vectors, `vector_mask` says at which places."""
        import numpy as np

        lengths = self.lengths[np.asarray(indices, dtype=np.int64)]
        shape = len(lengths), int(lengths.max())
        ids_NL = np.full(shape, self._pad, dtype=np.int64)
        mask_NL = np.zeros(shape, dtype=np.int64)
        labels_NL = np.full(shape, UNKNOWN, dtype=np.int64)
        placed_NL = np.zeros(shape, dtype=np.int64)
        for row, (index, length) in enumerate(zip(indices, lengths.tolist(), strict=True)):
            place = slice(shape[1] - length, None) if left else slice(length)
            ids_NL[row, place], labels_NL[row, place] = self.of(index)
            mask_NL[row, place] = 1
            if self._placed_T is not None:
                placed_NL[row, place] = self._placed_T[self._place(index)]
        arrays = {"input_ids": ids_NL, "attention_mask": mask_NL, "labels": labels_NL}
        return arrays if self._placed_T is None else {**arrays, "vector_mask": placed_NL}
