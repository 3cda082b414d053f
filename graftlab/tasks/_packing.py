"""Several examples in one row of tokens, without attention from one to another.

    arrays = collate(examples, max_length, pad)     # while batches are made: numpy
    how = isolation(model)                          # once, when the task is bound
    logits = model(**inputs(batch, model, how)).logits

`packed` puts the examples of a micro-batch into rows of at most `max_length` tokens, `padding_free` all of
them into one. Which examples a step sees is not packing's affair: batches, order, resuming, loss and
gradient are those of the same run without it, up to rounding. For evaluation, batches stay padded.

Positions restart with every example, and they alone tell one example from the next, in the batch as in
transformers (`masking_utils.find_packed_sequence_indices`), which makes a mask of blocks from them where a
model hands them on, and only where it gets no mask and no cache. Models that do not hand them on (Falcon,
OPT) get the blocks as a mask, which transformers takes as it is: a sliding window would be lost in it. That
neither lets anything through is not believed but tried on the model at hand.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from graftlab.contracts import Batch
from graftlab.errors import ConfigError, wrong
from graftlab.tasks._outputs import UNKNOWN

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

# Shapes: R rows, L tokens of the longest row, V vocabulary.

Isolation = Literal["positions", "mask"]
KERNELS = ("eager", "sdpa")  # flash attention reads positions too, but those of a single row only
SHORT_TABLES = ("gpt_neo",)  # has its causal mask as a table, as long as its positions
PROBE = (5, 4, 3, 2, 3)  # tokens of the examples that are tried: two rows
# Relative: rounding in bfloat16 comes to about 0.01, a wrong position or window to about 1.
TOLERANCE = 0.1
INSTEAD = "Set task.packing: none."


class Example(NamedTuple):
    """The tokens of one example, and what is trained of them."""

    ids: "Sequence[int] | np.ndarray"
    labels: "Sequence[int] | np.ndarray"
    """As many as `ids`: the token itself where it is trained, else `UNKNOWN`."""


def pack(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Return rows of indices, each index once; the lengths of a row add up to at most `max_length`.

    Best fit decreasing: the longest first, each into the fullest row that has room for it, which needs at
    most 11/9 as many rows as the best packing (Johnson, 1973). A row has its examples in the order given.
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        assert length <= max_length, "an example is cut before it is packed"
        place = bisect_left(rooms, (length, 0))
        room, row = rooms.pop(place) if place < len(rooms) else (max_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        insort(rooms, (room - length, row))
    return sorted(sorted(row) for row in rows)


def collate(
    examples: Sequence[Example], max_length: int | None, pad: int
) -> "dict[str, np.ndarray]":
    """Return `input_ids`, `position_ids` and `labels` (R, L) of examples packed into rows of at most
    `max_length` tokens, or all in one row where that is None.

    No example's first token is a label: the last one of another stands before it. What fills up a row
    has position 0, so that each of these tokens is an example of its own, which nothing else sees.
    """
    import numpy as np

    lengths = [len(example.ids) for example in examples]
    rows = [list(range(len(examples)))] if max_length is None else pack(lengths, max_length)
    shape = len(rows), max(sum(lengths[i] for i in row) for row in rows)
    ids_RL = np.full(shape, pad, dtype=np.int64)
    positions_RL = np.zeros(shape, dtype=np.int64)
    labels_RL = np.full(shape, UNKNOWN, dtype=np.int64)
    for number, row in enumerate(rows):
        start = 0
        for i in row:
            end = start + lengths[i]
            ids_RL[number, start:end] = examples[i].ids
            positions_RL[number, start:end] = np.arange(lengths[i])
            labels_RL[number, start + 1 : end] = examples[i].labels[1:]
            start = end
    return {"input_ids": ids_RL, "position_ids": positions_RL, "labels": labels_RL}


def inputs(batch: Batch, model: "nn.Module", how: Isolation) -> dict[str, object]:
    """Return what a model is called with for the batch that `collate` made."""
    given = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
    if how == "positions":
        return {**given, "use_cache": False}
    mask = blocks(batch["position_ids"])[:, None]
    wrapped: Any = model
    if wrapped.config._attn_implementation == "eager":  # which adds the mask to the scores
        import torch

        zeros = torch.zeros(mask.shape, dtype=wrapped.dtype, device=mask.device)
        mask = zeros.masked_fill(~mask, torch.finfo(zeros.dtype).min)
    return {**given, "attention_mask": mask, "use_cache": False}


def blocks(position_ids_RL: "Tensor") -> "Tensor":
    """Return which token sees which (R, L, L): those of its own example that stand before it, and itself."""
    numbers_RL = (position_ids_RL == 0).cumsum(1)
    return (numbers_RL[:, :, None] == numbers_RL[:, None]).tril()


def isolation(model: "nn.Module") -> Isolation:
    """Return what keeps examples apart in this model: their positions alone, or a mask besides.

    Both are tried on a few tokens, positions first. On the meta device nothing can be, and positions are
    assumed.

    Raises:
        ConfigError: neither does, or the attention's kernel is not known to.
    """
    import inspect

    config: Any = model.config
    name = config.model_type
    if next(model.parameters()).is_meta:
        return "positions"
    if config._attn_implementation not in KERNELS:
        raise _refused(
            f"task.packing: examples in one row are kept apart with backbone.attention "
            f"{' or '.join(KERNELS)}, not with {config._attn_implementation}. Choose one of them, or set "
            f"task.packing: none."
        )
    if name in SHORT_TABLES:
        raise _refused(f"task.packing: {name} models take no row longer than an example. {INSTEAD}")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise _refused(
            f"task.packing: {name} models take no position_ids, by which examples in one row are kept "
            f"apart. {INSTEAD}"
        )
    if _keeps_apart(model, "positions"):
        return "positions"
    if not _has_window(config) and _keeps_apart(model, "mask"):
        return "mask"
    raise _refused(
        f"task.packing: {name} models let examples in one row see each other, or lose their place. "
        f"{INSTEAD}"
    )


def _refused(said: str) -> ConfigError:
    return ConfigError(wrong(("task", "packing"), said, kind="conflict"))


def _has_window(config: object) -> bool:
    """Return whether some layer sees less than all that stands before a token, or has a state instead."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return bool(getattr(config, "sliding_window", None)) or set(kinds) != {"full_attention"}


def _keeps_apart(model: Any, how: Isolation) -> bool:
    """Return whether each example's logits come from its own tokens alone, and are those of it alone.

    Asked of the gradient, which is exactly zero for a token that is not looked at. Changed tokens would
    change others' logits in a mixture of experts by rounding, for they share matrix products.
    """
    import torch

    random = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    drawn = [torch.randint(vocabulary, (length,), generator=random).numpy() for length in PROBE]
    arrays = collate([Example(ids, ids) for ids in drawn], sum(PROBE[:2]), 0)
    batch = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
    seen: list[Tensor] = []

    def watch(module: "nn.Module", args: object, output: "Tensor") -> "Tensor":
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    training, watched = model.training, model.get_input_embeddings().register_forward_hook(watch)
    model.eval()
    try:
        with torch.enable_grad():
            logits_RLV = model(**inputs(batch, model, how)).logits.float()
            for place in _places(batch["position_ids"]):
                ids = batch["input_ids"][place][None]
                alone = model(input_ids=ids, use_cache=False).logits[0].float()
                packed = logits_RLV[place]
                weights = torch.linspace(-1, 1, packed.numel(), device=packed.device)
                total = packed.flatten() @ weights
                reached = torch.autograd.grad(total, seen[0], retain_graph=True)[0].clone()
                reached[place] = 0
                if reached.any() or (packed - alone).norm() > TOLERANCE * alone.norm():
                    return False
    except (RuntimeError, TypeError, ValueError):  # it takes no such mask
        return False
    finally:
        watched.remove()
        model.train(training)
    return True


def _places(position_ids_RL: "Tensor") -> Iterator[tuple[int, slice]]:
    """Yield where each example stands: its row, and its place in the row."""
    for row, positions in enumerate(position_ids_RL.tolist()):
        starts = [i for i, position in enumerate(positions) if position == 0]
        for start, end in pairwise([*starts, len(positions)]):
            yield row, slice(start, end)
