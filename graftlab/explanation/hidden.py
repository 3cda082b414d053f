"""What comes out of a model's blocks as it reads texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graftlab.explanation.sample import LONGEST

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from graftlab.contracts.arrays import Floats

# Shapes: N texts, T tokens of one of them, D features.


def of_texts(
    model: "nn.Module", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]
) -> "list[Floats] | str":
    """Return (N, D) what goes into the first block, then what comes out of each, or why there is nothing.

    A row is the mean over a text's tokens without its first, which in decoders draws activations so large
    that they would hide all others (Sun et al. 2024, arXiv 2402.17762). Each text is read by itself, so that
    none is padded, and up to 128 tokens.
    """
    import torch

    model.eval()
    read: list[list[Tensor]] = []
    for text in texts:
        inputs = dict(tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST))
        try:
            with torch.no_grad():
                states = model(**inputs, output_hidden_states=True, return_dict=True).hidden_states
        except Exception as error:  # any model may come here, and what it takes only it knows
            return f"it cannot read texts: {type(error).__name__}: {error}"[:200]
        if not states:
            return "it does not tell what comes out of its blocks"
        read.append([_mean(state[0], inputs["input_ids"].shape[1]) for state in states])
    return [
        np.stack([row.cpu().numpy() for row in rows]).astype(np.float64)
        for rows in zip(*read, strict=True)
    ]


def _mean(state_TD: "Tensor", tokens: int) -> "Tensor":
    """Return (D) the mean over the text's own tokens but the first; trained ones may stand in front."""
    own = state_TD[-tokens:].double()
    return own[1:].mean(0) if len(own) > 1 else own[0]
