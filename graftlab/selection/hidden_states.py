"""Hidden states of texts after every layer of a model of which one layer is in memory at a time.

While a layer computes, a thread reads the next one; the token embeddings are read by the rows needed. The
states of all tokens are kept, on disk too, so that a process that is killed goes on from the last layer.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graftlab.rundir import files

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from graftlab.contracts.arrays import Floats, Integers
    from graftlab.weights.layers import Checkpoint
    from graftlab.weights.layers.layer import Layer

log = logging.getLogger("graftlab")

# Shapes: N texts, T tokens of a batch's longest, D values of a state.

BATCH_TOKENS = 2048  # with padding: enough to keep processors busy, little beside a layer's weights
STATES = "states.safetensors"


class Tokens(NamedTuple):
    """Texts as batches of like length, the longest first."""

    ids: "list[Tensor]"  # each (n, T)
    masks: "list[Tensor]"  # each (n, T), 1 where there is a token; pads stand on the right
    order: "Integers"  # (N,) which text each row of the batches is
    truncated: int


class Computed(NamedTuple):
    """A layer that has just computed, still in memory."""

    number: int
    layer: "Layer"
    before: "Floats"  # (N, D)
    """What went into it, pooled."""
    after: "Floats"  # (N, D)
    """What came out of it, pooled."""


def tokenize(
    texts: Sequence[str],
    pairs: Sequence[str | None],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> Tokens:
    """Return the texts (or pairs) as the large model reads them."""
    import numpy as np
    import torch

    found = [
        tokenizer(text, pair, truncation=True, max_length=max_length)["input_ids"]
        for text, pair in zip(texts, pairs, strict=True)
    ]
    whole = [
        len(tokenizer(text, pair)["input_ids"]) if len(ids) >= max_length else 0
        for text, pair, ids in zip(texts, pairs, found, strict=True)
    ]
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    stand_in = next(token for token in ends if token is not None)  # an empty text has no token
    found = [ids or [stand_in] for ids in found]
    order_N = np.array(sorted(range(len(found)), key=lambda i: -len(found[i])))
    ids, masks, start = [], [], 0
    while start < len(order_N):
        longest = len(found[order_N[start]])
        rows = [found[i] for i in order_N[start : start + max(1, BATCH_TOKENS // longest)]]
        padded = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, tokens in enumerate(rows):
            padded[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        ids.append(padded)
        masks.append(mask)
        start += len(rows)
    return Tokens(ids, masks, order_N, sum(length > max_length for length in whole))


def pool(states: "Sequence[Tensor]", tokens: Tokens, how: str) -> "Floats":
    """Return (N, D) one state a text in float32, in the order of the texts: the mean over its tokens, the
    first, or the last."""
    import numpy as np
    import torch

    pooled = []
    for states_NTD, mask_NT in zip(states, tokens.masks, strict=True):
        if how == "mean":
            weights = mask_NT.to(states_NTD.device, torch.float32)
            summed = torch.einsum("ntd,nt->nd", states_NTD.float(), weights)
            pooled.append(summed / weights.sum(dim=1, keepdim=True))
        else:
            last = mask_NT.sum(dim=1) - 1 if how == "last" else torch.zeros(len(mask_NT)).long()
            pooled.append(states_NTD[torch.arange(len(last)), last].float())
    rows = torch.cat(pooled).cpu().numpy()
    found: Floats = np.empty_like(rows)
    found[tokens.order] = rows
    return found


class Stream:
    """The layers of a checkpoint, from 0 or from where a killed process was, to `last`."""

    def __init__(
        self,
        checkpoint: "Checkpoint",
        tokens: Tokens,
        folder: Path,
        *,
        pooling: str = "mean",
        dtype: str = "float32",
        device: str = "cpu",
        notify: Callable[[str], None] = log.info,
    ) -> None:
        """`checkpoint` is what `graftlab.weights.layers.open` returns; the states are kept in `folder`."""
        self.checkpoint, self.tokens, self.folder = checkpoint, tokens, folder
        self.pooling, self.dtype, self.device, self.notify = pooling, dtype, device, notify

    def run(self, last: int, again: Callable[[int], bool] = lambda _: False) -> Iterator[Computed]:
        """Yield each layer after it has computed; the states are saved when the next one is asked for.

        What was done with a layer may last until then and longer: the last that a killed process saved comes
        once more, as it was, where `again` says so.
        """
        import torch

        done, before, states = self._begin()
        after = pool(states, self.tokens, self.pooling)
        if done >= 0 and again(done):
            yield Computed(done, self._load(done).to(self.device), before, after)
        if done >= last:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader, torch.no_grad():
            asked = time.perf_counter()
            coming: Future[Layer] = reader.submit(self._load, done + 1)
            for index in range(done + 1, last + 1):
                layer = coming.result().to(self.device)
                if index == done + 1 and self.checkpoint.remote:
                    _announce(time.perf_counter() - asked, last - index)
                if index < last:
                    coming = reader.submit(self._load, index + 1)
                began = time.perf_counter()
                for number, mask_NT in enumerate(self.tokens.masks):
                    whole = bool(mask_NT.all())  # without pads, none has to be masked
                    mask = None if whole else mask_NT.to(self.device)
                    states[number] = layer(states[number].to(self.device), mask).cpu()
                seconds = time.perf_counter() - began
                self.notify(f"layer {index} of 0 to {last}: {seconds:.1f} s")
                before, after = after, pool(states, self.tokens, self.pooling)
                yield Computed(index, layer, before, after)
                del layer  # before the one after next is read
                if index < last:
                    self._save(index, before, states)

    def _load(self, index: int) -> "Layer":
        return self.checkpoint.load_layer(index, dtype=self.dtype)

    def _begin(self) -> "tuple[int, Floats, list[Tensor]]":
        """Return the last layer that is done (-1: none), its pooled input, and the states after it."""
        import numpy as np
        import torch

        path = self.folder / STATES
        if path.is_file():
            saved = files.load_tensors(path)
            done = int(saved.pop("layer"))
            before = saved.pop("before", torch.empty(0)).numpy()
            self.notify(f"going on after layer {done}")
            return done, before, [saved[name] for name in sorted(saved)]
        return (
            -1,
            np.empty(0),
            [
                self.checkpoint.embed(ids, attention_mask=mask, dtype=self.dtype)
                for ids, mask in zip(self.tokens.ids, self.tokens.masks, strict=True)
            ],
        )

    def _save(self, index: int, before: "Floats", states: "Sequence[Tensor]") -> None:
        import torch

        named = {f"{number:06}": tensor for number, tensor in enumerate(states)}
        named |= {"layer": torch.tensor(index), "before": torch.from_numpy(before)}
        with files.new_file(self.folder / STATES) as partial:
            files.save_tensors(partial, named)


def _announce(seconds: float, left: int) -> None:
    """Say how long reading over the network will take, by the first layer that has come."""
    log.warning(
        "a layer takes %.1f s to come over the network: the %d that are left about %.0f s",
        seconds, left, seconds * left,
    )  # fmt: skip
