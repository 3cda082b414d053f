"""Logits of a causal language model where a token is to be predicted, and the loss there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from graftlab.contracts import Batch
from graftlab.tasks._outputs import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor, nn

# Shapes: N examples, L tokens of the longest, P positions of the model (L, and virtual tokens in front),
# M tokens that are predicted, H hidden features, V vocabulary.

CHUNK = 256  # tokens whose float32 log-softmax is held at once: 128 MiB at a vocabulary of 128 k


def at_labels(model: "nn.Module", inputs: Batch, labels_NL: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Return the logits (M, V) that predict the labelled tokens, and their labels (M), example by example.

    A first token is predicted by nothing and left out. The language head sees the positions before labelled
    tokens only: prompts and padding cost it nothing.
    """
    from torch.nn import functional as F

    wanted_NL = F.pad(labels_NL[:, 1:] != UNKNOWN, (0, 1))
    labels_M = labels_NL[:, 1:][wanted_NL[:, :-1]]
    # unknown, or compiled into a graph that no hook can enter
    head = None if hasattr(model, "_orig_mod") else _head(model)
    if head is None:
        # From the end, because a method's virtual tokens stand in front.
        return model(**inputs).logits[:, -labels_NL.shape[1] :][wanted_NL], labels_M
    with _selected(head, wanted_NL):
        return model(**inputs).logits[:, 0], labels_M


@contextmanager
def _selected(head: "nn.Module", wanted_NL: "Tensor") -> Iterator[None]:
    """Have a language head compute (M, 1, V) instead of (N, P, V).

    The axis of one stays whole where a method cuts off its virtual tokens, which it does from the end.
    """
    from torch.nn import functional as F

    def select(module: "nn.Module", arguments: tuple[Any, ...]) -> tuple[object, ...]:
        hidden_NPH = arguments[0]
        wanted_NP = F.pad(wanted_NL, (hidden_NPH.shape[1] - wanted_NL.shape[1], 0))
        return (hidden_NPH[wanted_NP][:, None], *arguments[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _head(model: "nn.Module") -> "nn.Module | None":
    find = getattr(model, "get_output_embeddings", None)
    return cast("nn.Module | None", find()) if find else None


def has_virtual_tokens(model: "nn.Module") -> bool:
    """Return whether a method puts tokens of its own before what the model reads (PEFT's prompt learning)."""
    config = getattr(model, "active_peft_config", None)
    return bool(getattr(config, "is_prompt_learning", False))


def cross_entropy(
    logits_MV: "Tensor", labels_M: "Tensor", label_smoothing: float = 0.0
) -> "Tensor":
    """Return the loss of each token (M) in float32; the log-softmax of `CHUNK` tokens is held at a time."""
    from graftlab.tasks._cross_entropy import CrossEntropy

    losses_M: Tensor = CrossEntropy.apply(logits_MV, labels_M, label_smoothing, CHUNK)
    return losses_M
